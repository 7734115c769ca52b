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
//! 1. All workers stop polling, and all [tasks](RuntimeBuilder::task) get the signal to end.
//! 2. The workers drain concurrently, each within its grace period and its leases; see [`Worker::run`].
//! 3. The runtime waits for the tasks.
//! 4. The producers are closed, after they have sent the messages of handlers and tasks.
//!
//! Steps 3 and 4 have the rest of the grace period, and at least five seconds. [`RuntimeHandle::stop_now`] skips the
//! waiting: it stops the handlers, acknowledges finished messages, and sends nothing more. Dropping the future of
//! [`Runtime::run`] ends everything at once.
//!
//! # Changes while it runs
//!
//! [`RuntimeHandle::add_worker`] starts another worker, and [`RuntimeHandle::remove_worker`] drains one and removes it.
//! The other workers continue without a pause. To change a worker's queue, handler or other fixed settings, remove it
//! and add a new one under the same name. A [`WorkerHandle`] changes limits without a restart.
//!
//! # When a worker fails for good
//!
//! A worker waits out temporary problems, and waits for a queue or group that is deleted while it runs. It ends with an
//! error if its queue does not exist, its key is refused, or its settings do not fit its queue. By default that [stops
//! all workers](OnWorkerFailure::StopAll) in order, because a process that does half of its work looks healthy to its
//! supervisor, while a process that ends with an error is restarted.

mod builder;
mod error;
mod members;
mod producers;
mod report;
mod run;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::{
    builder::RuntimeBuilder,
    error::AddWorkerError,
    report::{ProducerEnd, RuntimeReport, WorkerEnd},
};
use self::{
    members::{Change, Members},
    producers::Producers,
};
pub use crate::{limits::LimitError, worker::Sharing};
use crate::{
    producer::Producer,
    worker::{Worker, WorkerHandle},
};

/// Workers, producers and tasks with one shutdown.
///
/// ```
/// use dms_worker::{Runtime, handler_fn, queue::NewQueue, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders"), "billing").await;
///     let report = Runtime::builder()
///         .worker(orders.worker(handler_fn(|| async { Ok(()) })).build()?)
///         .task("ticker", |runtime| async move { runtime.stopped().await }) // a task ends when it is told to
///         .build()?
///         .run(async {}) // a program waits for its stop signal here
///         .await;
///     assert!(report.drained);
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Runtime {
    workers: Vec<Worker>,
    tasks: Vec<Task>,
    changes: mpsc::UnboundedReceiver<Change>,
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
    Continue,
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

impl Task {
    fn new<F>(name: String, begin: impl FnOnce(RuntimeHandle) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, begin: Box::new(|runtime| Box::pin(begin(runtime))) }
    }
}

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
    members: Arc<Members>,
    producers: Arc<Producers>,
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
        self.members.handles().iter().for_each(WorkerHandle::stop_now);
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

    /// The workers, in the order in which they were added. Workers that were removed are not among them.
    pub fn workers(&self) -> Vec<WorkerHandle> {
        self.members.handles()
    }

    /// Adds a worker and starts it, as [`RuntimeBuilder::worker`] does before the start. The shared limits, the grace
    /// period and the [policy](OnWorkerFailure) of the runtime apply to it. Before [`Runtime::run`], it starts with the
    /// others.
    ///
    /// ```
    /// use dms_worker::{Runtime, handler_fn, queue::NewQueue, testing::TestServer};
    ///
    /// #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let server = TestServer::start().await;
    ///     let orders = server.group(NewQueue::new("orders"), "billing").await;
    ///     let runtime = Runtime::builder().build()?;
    ///     let handle = runtime.handle();
    ///     let running = tokio::spawn(runtime.run(std::future::pending()));
    ///
    ///     let worker = orders.worker(handler_fn(|| async { Ok(()) })).name("billing").build()?;
    ///     handle.add_worker(worker)?;
    ///     let end = handle.remove_worker("billing").await; // drains it; the other workers continue
    ///     assert!(end.is_some_and(|end| end.result.is_ok_and(|report| report.drained)));
    ///
    ///     handle.stop();
    ///     assert!(running.await?.drained);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// When a worker has the same name, also one that has ended and was not [removed](Self::remove_worker), when the
    /// shared limit has no room for one more poll, or when the shutdown has started.
    pub fn add_worker(&self, worker: Worker) -> Result<WorkerHandle, AddWorkerError> {
        self.members.add(worker, &self.stopping)
    }

    /// Stops a worker, waits until it has drained within its grace period and its leases, and removes it. The other
    /// workers continue. Afterwards its name and its part of the shared limits are free.
    ///
    /// Returns how it ended, which then is not in the [`RuntimeReport`]. Returns `None` if there is no worker of this
    /// name, or if the runtime has ended; then the report has it. A worker that is being removed stops no others, even
    /// if it ends with an error.
    ///
    /// # Cancel safety
    ///
    /// The worker stops when the future is first polled. Dropping the future afterwards does not keep the worker, and
    /// its end is in the [`RuntimeReport`].
    pub async fn remove_worker(&self, name: &str) -> Option<WorkerEnd> {
        self.members.remove(name)?.await.ok()
    }

    /// Starts a task, as [`RuntimeBuilder::task`] does before the start. Returns false without starting it if the
    /// shutdown has started.
    pub fn add_task<F>(&self, name: impl Into<String>, begin: impl FnOnce(Self) -> F + Send + 'static) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.members.add_task(Task::new(name.into(), begin), &self.stopping)
    }

    /// Sets the grace period of the shutdown, as [`RuntimeBuilder::shutdown_grace`] does before the start. A shutdown
    /// that has started keeps the period it started with.
    pub fn set_shutdown_grace(&self, grace: Duration) {
        self.members.set_grace(grace);
    }

    /// The grace period of the shutdown.
    pub fn shutdown_grace(&self) -> Duration {
        self.members.grace()
    }

    /// Sets the shared limits of messages and of bytes in flight, and how the workers share them, as
    /// [`RuntimeBuilder::max_in_flight`], [`max_in_flight_bytes`](RuntimeBuilder::max_in_flight_bytes) and
    /// [`sharing`](RuntimeBuilder::sharing) do before the start. `None` is no limit. No worker is interrupted: messages above a lower
    /// limit are finished, and messages that were in flight when the first limit was set are not counted.
    ///
    /// # Errors
    /// When a limit has no room for one poll of each worker. Nothing changes then.
    pub fn set_limits(
        &self,
        max_in_flight: impl Into<Option<usize>>,
        max_in_flight_bytes: impl Into<Option<usize>>,
        sharing: Sharing,
    ) -> Result<(), LimitError> {
        self.members.set_limits(max_in_flight.into(), max_in_flight_bytes.into(), sharing)
    }

    /// Sets the reaction to a worker that fails, as [`RuntimeBuilder::on_worker_failure`] does before the start. Workers that have
    /// failed before do not start again.
    pub fn set_on_worker_failure(&self, policy: OnWorkerFailure) {
        self.members.set_on_failure(policy);
    }

    /// Adds a producer, which is closed with the others. A producer that is added after that is not closed.
    pub fn add_producer(&self, name: impl Into<String>, producer: Producer) {
        self.producers.add(name.into(), producer);
    }

    /// Takes a producer out of the runtime, which then does not close it. `None` if there is none of this name, or if
    /// it was closed.
    pub fn remove_producer(&self, name: &str) -> Option<Producer> {
        self.producers.take(name)
    }

    /// The messages in flight in all workers, reservations of polls included.
    pub fn in_flight(&self) -> usize {
        self.members.handles().iter().map(|worker| worker.status().in_flight).sum()
    }

    /// The shared limit of bytes of bodies in flight; `None` without a limit.
    pub fn max_in_flight_bytes(&self) -> Option<usize> {
        self.members.ceiling()?.max_bytes()
    }

    /// The shared limit of messages in flight; `None` without a limit.
    pub fn max_in_flight(&self) -> Option<usize> {
        self.members.ceiling()?.max_messages()
    }
}
