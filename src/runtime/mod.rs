//! Several workers and producers in one process: one shutdown, one report, shared limits.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use dms_worker::{Producer, Worker, runtime::{LimitError, Runtime}};
//! # async fn example(orders: Worker, mails: Worker, audit: Producer) -> Result<(), LimitError> {
//! let report = Runtime::builder()
//!     .worker(orders)
//!     .worker(mails)
//!     .producer("audit", audit) // handlers may use it to their end
//!     .max_in_flight(200)       // in both workers, above the limits of each
//!     .build()?
//!     .run(async { drop(tokio::signal::ctrl_c().await) })
//!     .await;
//! assert!(report.drained);
//! # Ok(())
//! # }
//! ```
//!
//! # How it ends
//!
//! 1. Every worker stops polling, and every [task](RuntimeBuilder::task) is told to end, at the same moment.
//! 2. The workers drain side by side, each within its grace period and its leases; see [`Worker::run`].
//! 3. The tasks are waited for.
//! 4. The producers are closed: what handlers and tasks gave them is sent.
//!
//! Steps 3 and 4 have what is left of the grace period, five seconds at least. Dropping the future of [`Runtime::run`] ends everything
//! at once; [`RuntimeHandle::stop_now`] stops the handlers, acknowledges what they finished, and sends nothing more.
//!
//! # When a worker fails for good
//!
//! A worker goes on through everything that can pass. It ends with an error when its queue does not exist, its key is refused, or
//! its settings do not fit its queue; one whose queue or group is deleted while it runs waits for it. By default that [ends all](OnWorkerFailure::StopAll), in order: a process that does half
//! of its work looks well to whoever watches it, one that ends with an error does not, and is started again.

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

/// Workers, producers and tasks that live and end together.
#[derive(Debug)]
pub struct Runtime {
    workers: Vec<Worker>,
    tasks: Vec<Task>,
    on_failure: OnWorkerFailure,
    grace: Duration,
    handle: RuntimeHandle,
}

/// What happens to the others when one worker fails for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnWorkerFailure {
    /// They end in order, and the report has the error. The default.
    #[default]
    StopAll,
    /// They go on; the runtime ends by itself when no worker is left. The error is logged at once, and in the report.
    GoOn,
    /// They go on, and the worker tries again, at intervals of up to half a minute: it looks its queue and its group up again
    /// until it can work. [`WorkerHandle::failure`] says why it cannot meanwhile. A key that is refused at the start ends all.
    Retry,
}

/// Work beside the workers: its name, and what makes its future.
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
    /// Begins a runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// A handle that steers the runtime while it runs.
    pub fn handle(&self) -> RuntimeHandle {
        self.handle.clone()
    }
}

/// Steers a running runtime; cheap to clone.
#[derive(Clone, Debug)]
pub struct RuntimeHandle {
    stopping: CancellationToken,
    now: CancellationToken,
    workers: Arc<[WorkerHandle]>,
    producers: Arc<Producers>,
    ceiling: Option<Arc<SharedLimit>>,
}

impl RuntimeHandle {
    /// Begins the shutdown, as the future given to [`Runtime::run`] does. Doing it twice is safe.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Ends at once: handlers are stopped, what they finished is acknowledged within five seconds, producers give up what they
    /// have not sent.
    pub fn stop_now(&self) {
        self.now.cancel();
        self.stopping.cancel();
        self.workers.iter().for_each(WorkerHandle::stop_now);
    }

    /// Resolves when the shutdown has begun. Cancel-safe.
    pub async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// A token that is cancelled when the shutdown begins; cancelling it begins none.
    #[doc(hidden)]
    pub fn stop_token(&self) -> CancellationToken {
        self.stopping.child_token()
    }

    /// The workers, in the order in which they were added.
    pub fn workers(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// Adds a producer, to be closed with the others at the end. One that comes after that is closed by nobody.
    pub fn add_producer(&self, name: impl Into<String>, producer: Producer) {
        self.producers.add(name.into(), producer);
    }

    /// Messages in flight in all workers, places reserved by polls included.
    pub fn in_flight(&self) -> usize {
        match &self.ceiling {
            Some(ceiling) => ceiling.messages(),
            None => self.workers.iter().map(|worker| worker.status().in_flight).sum(),
        }
    }

    /// The most messages that may be in flight in all workers; `None` without a ceiling.
    pub fn max_in_flight(&self) -> Option<usize> {
        self.ceiling.as_ref()?.max_messages()
    }
}
