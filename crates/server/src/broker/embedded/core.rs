//! [`Core`], which the parts of an embedded broker share: the locked state, the store, and the channel to the committer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, mpsc};

use crate::{
    broker::{
        AlreadyLogged, Appended, BrokerError,
        embedded::{
            command::{Command, Request},
            health::StoreHealth,
            reply::{self, Pending},
            state::BrokerState,
        },
    },
    clock::Clock,
    store::{Store, StoreError},
};

/// The number of callers that read messages without leasing them at the same time. Others wait.
const MAX_LOOKS: usize = 4;

/// The shared parts.
#[derive(Debug)]
pub(crate) struct Core {
    /// Changed by the committer, which applies stored records, and by consume calls, which hand out leases.
    state: Mutex<BrokerState>,
    /// Keeps records and messages.
    pub(crate) store: Arc<dyn Store>,
    /// Wall-clock time that does not change when the clock of the system is set.
    pub(crate) clock: Clock,
    /// The clock of the system, for schedules, which people write for the time that their clocks show.
    pub(crate) wall: Clock,
    /// Makes the timer look again.
    pub(crate) timer: Notify,
    /// Wakes the heartbeat when there are leases.
    pub(crate) heartbeat: Notify,
    /// Makes the maintenance task look at the store.
    pub(crate) maintenance: Notify,
    /// Whether the store works.
    pub(crate) health: StoreHealth,
    /// Limits how many callers read messages without leasing them.
    pub(crate) looks: Semaphore,
    /// To the committer.
    requests: mpsc::UnboundedSender<Request>,
}

impl Core {
    pub(crate) fn new(
        state: BrokerState,
        store: Arc<dyn Store>,
        wall: Clock,
        requests: mpsc::UnboundedSender<Request>,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            store,
            clock: wall.steady(),
            wall,
            timer: Notify::new(),
            heartbeat: Notify::new(),
            maintenance: Notify::new(),
            health: StoreHealth::new(),
            looks: Semaphore::new(MAX_LOOKS),
            requests,
        }
    }

    /// Locks the state. The lock is never held across an await. A panic elsewhere does not poison it, because every change of
    /// the state is made by records that were prepared before.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BrokerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state of a broker that serves calls.
    ///
    /// # Errors
    /// When the broker is closed, or its store is lost or may be.
    pub(crate) fn open(&self) -> Result<MutexGuard<'_, BrokerState>, BrokerError> {
        let state = self.lock();
        // First, because a call that was not begun may be made by the server that owns the store now.
        if !state.closed {
            self.check_may_serve()?;
        }
        state.check_open()?;
        Ok(state)
    }

    /// # Errors
    /// When the store may belong to another process by now.
    pub(crate) fn check_may_serve(&self) -> Result<(), BrokerError> {
        if self.store.may_serve() { Ok(()) } else { Err(BrokerError::Unavailable) }
    }

    /// Records that the store belongs to another process, or to none. From now on nothing may be answered from memory.
    pub(crate) fn lose(&self, error: &StoreError) {
        let mut state = self.lock();
        if state.lost.is_none() {
            tracing::error!(%error, "the store no longer belongs to this process; calls that reach it from now on are refused");
            state.lost = Some(Arc::new(AlreadyLogged(error.cause().clone())));
            // Calls that wait would otherwise wait until their time is over for messages that another process may have now.
            state.wake_all();
        }
    }

    /// Puts a command into the queue of the committer. The result says how it went.
    pub(crate) fn submit(&self, command: Command) -> Pending {
        let (reply, pending) = reply::channel();
        // If the committer is gone, the request is dropped, and its `Reply` reports that the broker is closed.
        let _ = self.requests.send(Request { command, appended: Appended::default(), reply });
        pending
    }

    /// Calls the store, on a blocking thread if it waits for a disk or a network.
    pub(crate) async fn ask_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.store.blocks() {
            return ask(&*self.store);
        }
        let store = self.store.clone();
        // Not a thread of our own: under a paused clock time stands still while a blocking task of tokio runs.
        match tokio::task::spawn_blocking(move || ask(&*store)).await {
            Ok(answer) => answer,
            Err(stopped) => Err(StoreError::new(stopped)),
        }
    }

    /// Reads messages from the store, and records if the disk fails.
    pub(crate) async fn read_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.ask_store(read).await;
        if let Some(lost) = found.as_ref().err().filter(|error| error.is_lost()) {
            self.lose(lost);
        }
        if let Some(error) = self.store.read_error().as_ref().or(found.as_ref().err())
            && self.health.read_failed(error, self.clock.now_ms())
        {
            // Maintenance probes the disk until it can read again.
            self.maintenance.notify_one();
        }
        found.map_err(|error| error.map_cause(|cause| Arc::new(AlreadyLogged(cause))))
    }
}
