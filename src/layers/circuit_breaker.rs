//! [`CircuitBreaker`]: stops calls and polls while a dependency of the handler is down.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tower::Layer;

use super::{
    around::{Around, AroundService},
    circuit::{Admission, CallResult, Circuit, CircuitState, Ticket},
};
use crate::worker::{ConcurrencyCap, Delivery, DeliveryService, FailureKind, HandlerError, WorkerHandle};

/// Stops calls and polls while a dependency of the handler is down, so that messages stay in their queue and use up no
/// attempts.
///
/// After a number of consecutive failures the circuit opens: no handler is called, and the workers that it
/// is [attached](Self::attach) to do not poll. After a time it is half-open: the workers fetch one message, and one call passes
/// as a probe. If the probe succeeds, the circuit closes, otherwise it opens again. Messages that were fetched already
/// wait for at most half of their remaining lease and are then [deferred](HandlerError::defer). Errors, panics and
/// deadlines count as failures; rejects, deferrals and undecodable bodies do not.
///
/// The message of a failed probe is deferred as well, for the time that the circuit stays open, so that a long outage
/// uses up no attempts. FIFO and Kafka queues have no delays, so there each probe counts as an attempt.
///
/// Clones share the state. Give one to each worker with the same dependency.
///
/// ```no_run
/// use std::time::Duration;
/// use dms_worker::{Client, Handler, Worker, layers::CircuitBreaker};
///
/// fn worker(client: Client, handler: impl Handler) -> Result<Worker, Box<dyn std::error::Error>> {
///     let breaker = CircuitBreaker::new(5, Duration::from_secs(10));
///     let builder = Worker::builder(client).queue("orders").group("billing").handler(handler);
///     let worker = builder.layer(breaker.clone()).build()?;
///     breaker.attach(worker.handle());
///     Ok(worker)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct CircuitBreaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    circuit: Mutex<Circuit>,
    changes: watch::Sender<CircuitState>,
    workers: Mutex<Vec<WorkerHandle>>,
    caps: Mutex<Vec<ConcurrencyCap>>,
}

impl CircuitBreaker {
    /// A circuit that opens after `failures` consecutive failures (at least one) and stays open for `open_for`.
    pub fn new(failures: u32, open_for: Duration) -> Self {
        Self(Arc::new(Shared {
            circuit: Mutex::new(Circuit::new(failures, open_for)),
            changes: watch::Sender::new(CircuitState::Closed),
            workers: Mutex::default(),
            caps: Mutex::default(),
        }))
    }

    /// Stops the polls of this worker while the circuit is open, and limits it to one message while the circuit is
    /// half-open.
    pub fn attach(&self, worker: WorkerHandle) {
        lock(&self.0.workers).push(worker);
    }

    /// The current state.
    pub fn state(&self) -> CircuitState {
        *self.0.changes.borrow()
    }

    /// The states from now on, for metrics and alerts.
    pub fn states(&self) -> CircuitStates {
        CircuitStates { last: self.state(), changes: self.0.changes.subscribe() }
    }

    /// Publishes a changed state, and limits or releases the workers.
    fn tell(&self) {
        let state = lock(&self.0.circuit).state();
        if *self.0.changes.borrow() == state {
            return;
        }
        let caps = match state {
            CircuitState::Closed => Vec::new(),
            CircuitState::Open => self.cap(0),
            CircuitState::HalfOpen => self.cap(1),
        };
        // The new caps are set before the old ones are released, so that no worker polls in between.
        drop(std::mem::replace(&mut *lock(&self.0.caps), caps));
        match state {
            CircuitState::Open => tracing::warn!("the circuit is open: fetching stops"),
            CircuitState::HalfOpen => tracing::info!("the circuit is half-open: one message is tried"),
            CircuitState::Closed => tracing::info!("the circuit is closed: fetching goes on"),
        }
        self.0.changes.send_replace(state);
    }

    fn cap(&self, messages: usize) -> Vec<ConcurrencyCap> {
        lock(&self.0.workers).iter().map(|worker| worker.cap_concurrency(messages)).collect()
    }

    /// Waits until a call may start.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future starts no call.
    async fn admitted(&self) -> Call {
        let mut changes = self.0.changes.subscribe();
        loop {
            let admission = lock(&self.0.circuit).admit(Instant::now());
            self.tell();
            match admission {
                Admission::Go(ticket) => return Call { breaker: self.clone(), ticket, verdict: CallResult::Failed },
                Admission::NotBefore(until) => sleep_until(until).await,
                // Cannot fail: `self` has the sender.
                Admission::AfterProbe => drop(changes.changed().await),
            }
        }
    }

    fn ended(&self, ticket: Ticket, verdict: CallResult) {
        let opened = lock(&self.0.circuit).ended(ticket, verdict, Instant::now());
        self.tell();
        if verdict == CallResult::Neither {
            // A waiting call may become the next probe.
            self.0.changes.send_modify(|_| {});
        }
        if let Some(until) = opened {
            let breaker = self.clone();
            tokio::spawn(async move {
                sleep_until(until).await;
                lock(&breaker.0.circuit).advance(Instant::now());
                breaker.tell();
            });
        }
    }
}

/// The states of a [`CircuitBreaker`], one after the other.
///
/// ```no_run
/// async fn log(breaker: dms_worker::layers::CircuitBreaker) {
///     let mut states = breaker.states();
///     while let Some(state) = states.next().await {
///         println!("the circuit is {state:?}");
///     }
/// }
/// ```
#[derive(Debug)]
pub struct CircuitStates {
    last: CircuitState,
    changes: watch::Receiver<CircuitState>,
}

impl CircuitStates {
    /// Waits until the state differs from the last one that was returned, and returns it; `None` once no clone of the breaker is left.
    ///
    /// A state that ends before the next call is skipped.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<CircuitState> {
        let last = self.last;
        self.last = *self.changes.wait_for(|state| *state != last).await.ok()?;
        Some(self.last)
    }
}

/// An admitted call. If it is dropped without a result (by a panic or the deadline), it counts as failed.
struct Call {
    breaker: CircuitBreaker,
    ticket: Ticket,
    verdict: CallResult,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.breaker.ended(self.ticket, self.verdict);
    }
}

impl<S> Layer<S> for CircuitBreaker {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(self.clone()))
    }
}

impl Around for CircuitBreaker {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        let wait_until = delivery.deadline() - delivery.remaining() / 2;
        let Ok(mut call) = timeout_at(wait_until, self.admitted()).await else {
            return Err(HandlerError::defer(lock(&self.0.circuit).open_for()));
        };
        let answer = inner.deliver(delivery).await;
        call.verdict = match &answer {
            Ok(()) => CallResult::Succeeded,
            Err(error) if error.kind() == FailureKind::Retry => CallResult::Failed,
            Err(_) => CallResult::Neither,
        };
        match answer {
            Err(error) if call.ticket.probe && call.verdict == CallResult::Failed => {
                Err(error.deferred(lock(&self.0.circuit).open_for()))
            }
            answer => answer,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
