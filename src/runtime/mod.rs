//! [`Runtime`]: several workers and producers in one process, with one shutdown, one report and shared limits.
//!
//! ```no_run
//! use dms_worker::{Client, Handler, Producer, Runtime, Worker};
//!
//! async fn run(
//!     client: Client,
//!     billing: impl Handler,
//!     mailing: impl Handler,
//!     audit: Producer,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let report = Runtime::builder()
//!         .worker(Worker::builder(client.clone()).queue("orders").group("billing").handler(billing).build()?)
//!         .worker(Worker::builder(client).queue("mails").group("sender").handler(mailing).build()?)
//!         .producer("audit", audit) // handlers may use it until they end
//!         .max_in_flight(200) // in both workers together
//!         .build()?
//!         .run(async { drop(tokio::signal::ctrl_c().await) })
//!         .await;
//!     assert!(report.drained);
//!     Ok(())
//! }
//! ```
//!
//! # How it ends
//!
//! 1. All workers stop polling, and all [tasks](RuntimeBuilder::task) are told to end.
//! 2. The workers drain concurrently, each within its grace period and its leases; see [`Worker::run`].
//! 3. The runtime waits for the tasks.
//! 4. The producers are closed, after they have sent the messages of handlers and tasks.
//!
//! Steps 3 and 4 have the rest of the grace period, and at least five seconds. [`RuntimeHandle::stop_now`] skips the
//! waiting: it stops the handlers, acknowledges finished messages, and sends nothing more. Dropping the future of
//! [`Runtime::run`] ends everything at once.
//!
//! # When a worker fails for good
//!
//! A worker waits out temporary problems, and waits for a queue or group that is deleted while it runs. It ends with an
//! error if its queue does not exist, its key is refused, or its settings do not fit its queue. By default that [stops
//! all workers](OnWorkerFailure::StopAll) in order, because a process that does half of its work looks healthy to its
//! supervisor, while a process that ends with an error is restarted.

mod builder;
mod producers;
mod report;
mod run;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::producers::Producers;
pub use self::{
    builder::RuntimeBuilder,
    report::{ProducerEnd, RuntimeReport, WorkerEnd},
};
pub use crate::{limits::LimitError, worker::Sharing};
use crate::{
    producer::Producer,
    worker::{SharedLimit, Worker, WorkerHandle},
};

/// Workers, producers and tasks with one shutdown.
#[derive(Debug)]
pub struct Runtime {
    workers: Vec<Worker>,
    tasks: Vec<Task>,
    on_failure: OnWorkerFailure,
    grace: Duration,
    handle: RuntimeHandle,
}

/// The reaction to a worker that ends with an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnWorkerFailure {
    /// The other workers end in order, and the report has the error. The default.
    #[default]
    StopAll,
    /// The other workers continue. The runtime ends when no worker is left. The error is logged at once and is in the
    /// report.
    GoOn,
    /// The other workers continue, and the worker looks up its queue and group again, at intervals of up to half a
    /// minute, until it can work. Meanwhile [`WorkerHandle::failure`] has the reason. A key that is refused at the
    /// start stops all workers.
    Retry,
}

/// A task: its name and the function that starts it.
struct Task {
    name: String,
    begin: Box<dyn FnOnce(RuntimeHandle) -> Work + Send>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.name)
    }
}

impl Runtime {
    /// Starts the settings of a runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A handle to control the runtime while it runs.
    pub fn handle(&self) -> RuntimeHandle {
        self.handle.clone()
    }
}

/// Controls a running runtime. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    stopping: CancellationToken,
    now: CancellationToken,
    workers: Arc<[WorkerHandle]>,
    producers: Arc<Producers>,
    ceiling: Option<Arc<SharedLimit>>,
}

impl RuntimeHandle {
    /// Starts the shutdown, as the future of [`Runtime::run`] does. Idempotent.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Ends at once: stops handlers, acknowledges finished messages within five seconds, and drops the unsent messages
    /// of producers.
    pub fn stop_now(&self) {
        self.now.cancel();
        self.stopping.cancel();
        self.workers.iter().for_each(WorkerHandle::stop_now);
    }

    /// Resolves when the shutdown has started.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// A token that is cancelled when the shutdown starts. Cancelling it does not start the shutdown.
    #[doc(hidden)]
    pub fn stop_token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// The workers, in the order in which they were added.
    pub fn workers(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// Adds a producer, which is closed with the others. A producer that is added after that is not closed.
    pub fn add_producer(&self, name: impl Into<String>, producer: Producer) {
        self.producers.add(name.into(), producer);
    }

    /// The messages in flight in all workers, reservations of polls included.
    pub fn in_flight(&self) -> usize {
        match &self.ceiling {
            Some(ceiling) => ceiling.messages(),
            None => self.workers.iter().map(|worker| worker.status().in_flight).sum(),
        }
    }

    /// The shared limit of messages in flight; `None` without a limit.
    pub fn max_in_flight(&self) -> Option<usize> {
        self.ceiling.as_ref()?.max_messages()
    }
}
