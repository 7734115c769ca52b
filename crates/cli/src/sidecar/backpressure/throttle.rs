//! [`Throttle`]: combines everything that holds a worker back.
//!
//! An operator, an application that is down, and one that asks for a pause may all want a worker to stop fetching; it
//! fetches again when none of them does. Likewise the limit of messages in flight is the operator's, or one while an
//! application that was down is tried out.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use dms_worker::worker::WorkerHandle;

/// Pauses and resumes one worker, and limits its concurrency.
#[derive(Clone)]
pub(crate) struct Throttle {
    worker: WorkerHandle,
    state: Arc<Mutex<ThrottleState>>,
}

#[derive(Debug)]
struct ThrottleState {
    /// Whether the operator pauses the worker.
    operator: bool,
    /// Whether the application is down.
    app_down: bool,
    /// Whether one message is delivered, to see if the application works again.
    trying_out: bool,
    asked_until: Option<Instant>,
    concurrency: usize,
}

impl Throttle {
    /// A worker that nobody holds back yet.
    pub(crate) fn new(worker: WorkerHandle) -> Self {
        let concurrency = worker.status().concurrency;
        let state =
            ThrottleState { operator: false, app_down: false, trying_out: false, asked_until: None, concurrency };
        Self { worker, state: Arc::new(Mutex::new(state)) }
    }

    /// The worker.
    pub(crate) fn worker(&self) -> &WorkerHandle {
        &self.worker
    }

    /// The operator pauses the worker, or resumes it.
    pub(crate) fn operator(&self, pause: bool) {
        self.change(|state| state.operator = pause);
    }

    /// Whether the operator has paused the worker.
    pub(crate) fn is_paused_by_operator(&self) -> bool {
        self.lock().operator
    }

    /// The operator sets how many messages may be in flight.
    pub(crate) fn concurrency(&self, messages: usize) {
        self.change(|state| state.concurrency = messages);
    }

    /// The application is down: nothing is fetched for it.
    pub(crate) fn app_down(&self) {
        self.change(|state| (state.app_down, state.trying_out) = (true, false));
    }

    /// The application may be back: one message at a time finds out.
    pub(crate) fn app_trying(&self) {
        self.change(|state| (state.app_down, state.trying_out) = (false, true));
    }

    /// The application is well.
    pub(crate) fn app_up(&self) {
        self.change(|state| (state.app_down, state.trying_out) = (false, false));
    }

    /// Whether the application is known to be down.
    pub(crate) fn is_app_down(&self) -> bool {
        self.lock().app_down
    }

    /// The application asks for a pause (`Retry-After`): the longest one asked for holds. Says whether none was under way.
    pub(crate) fn pause_for(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let (longer, begins) = self.change(|state| {
            let longer = state.asked_until.is_none_or(|asked| until > asked);
            let begins = state.asked_until.is_none_or(|asked| asked <= Instant::now());
            if longer {
                state.asked_until = Some(until);
            }
            (longer, begins)
        });
        if longer {
            let throttle = self.clone();
            tokio::spawn(async move {
                sleep_until(until).await;
                // Compares with the clock again, because a longer pause may have been requested meanwhile.
                throttle.change(|_| ());
            });
        }
        begins
    }

    fn change<T>(&self, change: impl FnOnce(&mut ThrottleState) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        if state.asked_until.is_some_and(|until| until <= Instant::now()) {
            state.asked_until = None;
        }
        // Under the lock: the last change decides, in whatever order tasks come.
        self.worker.set_concurrency(if state.trying_out { 1.min(state.concurrency) } else { state.concurrency });
        if state.operator || state.app_down || state.asked_until.is_some() {
            self.worker.pause();
        } else {
            self.worker.resume();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, ThrottleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle with which a handler pauses its worker. It is created before the worker, and connected to it later.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backpressure(Arc<OnceLock<Throttle>>);

impl Backpressure {
    /// Connects it to the handler's worker. Until then it does nothing.
    pub(crate) fn connect(&self, throttle: Throttle) {
        // Set once: a handler has one worker.
        let _ = self.0.set(throttle);
    }

    /// Stops fetching for this long. Says whether that begins a pause: false while one is under way.
    pub(crate) fn pause_for(&self, pause: Duration) -> bool {
        self.0.get().is_some_and(|throttle| throttle.pause_for(pause))
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("worker", &self.worker.name()).field("state", &*self.lock()).finish()
    }
}
