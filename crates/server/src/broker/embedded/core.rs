//! What the parts of an embedded broker share: the state behind its lock, the store, and the way to the committer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use crate::{
    broker::{
        AlreadyLogged, BrokerError,
        embedded::{
            command::{Command, Request},
            config::EmbeddedConfig,
            health::StoreHealth,
            state::{At, State},
        },
    },
    clock::Clock,
    store::{Store, StoreError},
};

/// The shared parts.
#[derive(Debug)]
pub(crate) struct Core {
    /// Changed by the committer, which applies what is stored, and by consume calls, which hand out leases.
    state: Mutex<State>,
    /// Where records go and messages come from.
    pub(crate) store: Arc<dyn Store>,
    /// The options.
    pub(crate) config: EmbeddedConfig,
    /// Wall-clock time.
    pub(crate) clock: Clock,
    /// Makes the timer look again.
    pub(crate) timer: Notify,
    /// Tells the heartbeat that there are leases.
    pub(crate) heartbeat: Notify,
    /// Makes the housekeeper look at the store.
    pub(crate) maintenance: Notify,
    /// Whether the store does what it is asked.
    pub(crate) health: StoreHealth,
    /// To the committer.
    requests: mpsc::UnboundedSender<Request>,
}

impl Core {
    pub(crate) fn new(
        state: State,
        store: Arc<dyn Store>,
        config: EmbeddedConfig,
        clock: Clock,
        requests: mpsc::UnboundedSender<Request>,
    ) -> Self {
        Self {
            state: Mutex::new(state),
            store,
            config,
            clock,
            timer: Notify::new(),
            heartbeat: Notify::new(),
            maintenance: Notify::new(),
            health: StoreHealth::new(),
            requests,
        }
    }

    /// The state. Never held across an await; a panic elsewhere does not make it unusable.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the broker is closed.
    pub(crate) fn open(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.lock();
        if state.closed { Err(BrokerError::Closed) } else { Ok(state) }
    }

    /// The time of a call.
    pub(crate) fn at(&self) -> At {
        At(Instant::now())
    }

    /// Puts work into the queue of the committer; what it gives says how it went.
    pub(crate) fn submit(&self, command: Command) -> Pending {
        let (reply, answer) = oneshot::channel();
        // With the committer gone the job is dropped, and its answer is that the broker is closed.
        let _ = self.requests.send(Request { command, reply });
        Pending(answer)
    }

    /// Asks the store, away from the async threads if it waits for a disk.
    pub(crate) async fn ask_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.store.blocks() {
            return ask(&*self.store);
        }
        let store = self.store.clone();
        // Not a thread of our own: under a paused clock time stands still while a blocking task runs.
        match tokio::task::spawn_blocking(move || ask(&*store)).await {
            Ok(answer) => answer,
            Err(stopped) => Err(StoreError::new(stopped)),
        }
    }
}

impl Core {
    /// Asks the store for messages; notes if the disk does not give them back.
    pub(crate) async fn read_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.ask_store(read).await;
        if let Some(error) = self.store.read_error().as_ref().or(found.as_ref().err())
            && self.health.read_failed(error, self.clock.now_ms())
        {
            // Looks from time to time whether it could.
            self.maintenance.notify_one();
        }
        found.map_err(|error| StoreError(Arc::new(AlreadyLogged(error.0))))
    }
}

/// Work under way. Dropping it does not stop the work.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Receiver<Result<(), BrokerError>>);

impl Pending {
    /// How the work went.
    pub(crate) async fn outcome(self) -> Result<(), BrokerError> {
        self.0.await.unwrap_or(Err(BrokerError::Closed))
    }
}
