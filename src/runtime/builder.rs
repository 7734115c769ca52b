//! [`RuntimeBuilder`]: the settings of a runtime.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    OnWorkerFailure, Runtime, RuntimeHandle, Task,
    members::{Members, check_room},
    producers::Producers,
};
use crate::{
    limits::LimitError,
    producer::Producer,
    worker::{SharedLimit, Sharing, Worker},
};

/// Builds a [`Runtime`]. Made by [`Runtime::builder`].
///
/// Two workers with a common limit of 200 messages in flight. When it is scarce, the first one gets three quarters of it.
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::{
///     Runtime, handler_fn,
///     queue::NewQueue,
///     runtime::{OnWorkerFailure, Sharing},
///     testing::TestServer,
/// };
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders"), "billing").await;
///     let mails = server.group(NewQueue::new("mails"), "sender").await;
///
///     let runtime = Runtime::builder()
///         .worker(orders.worker(handler_fn(|| async { Ok(()) })).name("billing").weight(3).build()?)
///         .worker(mails.worker(handler_fn(|| async { Ok(()) })).name("mails").build()?)
///         .max_in_flight(200)
///         .sharing(Sharing::Weighted)
///         .on_worker_failure(OnWorkerFailure::Continue) // the other one works on
///         .shutdown_grace(Duration::from_secs(10))
///         .build()?;
///     assert_eq!(runtime.handle().workers().len(), 2);
///     Ok(())
/// }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct RuntimeBuilder {
    workers: Vec<Worker>,
    tasks: Vec<Task>,
    producers: Producers,
    on_failure: OnWorkerFailure,
    max_in_flight: Option<usize>,
    max_in_flight_bytes: Option<usize>,
    sharing: Sharing,
    grace: Option<Duration>,
    stopping: CancellationToken,
}

impl RuntimeBuilder {
    /// Adds a worker. Its [weight](crate::worker::WorkerBuilder::weight) determines its share of a shared limit.
    pub fn worker(mut self, worker: Worker) -> Self {
        self.workers.push(worker);
        self
    }

    /// Adds a producer, which is closed after the workers and the tasks have ended, so that both may use it.
    pub fn producer(self, name: impl Into<String>, producer: Producer) -> Self {
        self.producers.add(name.into(), producer);
        self
    }

    /// Adds a task that runs next to the workers, such as an HTTP endpoint that accepts messages.
    /// [`RuntimeHandle::stopped`] tells it to end. The runtime waits for it before it closes the producers. A task that
    /// ends earlier ends nothing else.
    pub fn task<F>(mut self, name: impl Into<String>, begin: impl FnOnce(RuntimeHandle) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.push(Task::new(name.into(), begin));
        self
    }

    /// The most messages in flight in all workers together, reservations of polls included; no limit by default. Each
    /// worker keeps its own limit and is sure of one message, so the value must be at least the number of workers.
    pub fn max_in_flight(mut self, messages: impl Into<Option<usize>>) -> Self {
        self.max_in_flight = messages.into();
        self
    }

    /// The most bytes of bodies in flight in all workers together; no limit by default. A poll counts as 512 KiB until
    /// it is answered, and each worker is sure of one poll, so the value must be at least 512 KiB for each worker.
    pub fn max_in_flight_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.max_in_flight_bytes = bytes.into();
        self
    }

    /// How the workers share these limits; [`Sharing::Weighted`] by default.
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// The reaction to a worker that fails; [`OnWorkerFailure::StopAll`] by default.
    pub fn on_worker_failure(mut self, policy: OnWorkerFailure) -> Self {
        self.on_failure = policy;
        self
    }

    /// The grace period of the shutdown, which replaces the grace periods of the workers. By default it is the longest [grace
    /// period](crate::worker::WorkerBuilder::shutdown_grace) of the workers, or 25 s without workers.
    pub fn shutdown_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// Uses this token to start the shutdown, for parts that were made before the runtime.
    #[doc(hidden)]
    pub fn stop_with(mut self, stopping: CancellationToken) -> Self {
        self.stopping = stopping;
        self
    }

    /// Checks the settings and makes the runtime.
    ///
    /// # Errors
    /// When two workers have the same name, or a shared limit has no room for one poll of each worker.
    pub fn build(self) -> Result<Runtime, LimitError> {
        let Self { workers, tasks, producers, on_failure, sharing, grace, .. } = self;
        let (messages, bytes) = (self.max_in_flight, self.max_in_flight_bytes);
        check_room(workers.len(), messages, bytes)?;
        let ceiling = (messages.is_some() || bytes.is_some()).then(|| SharedLimit::new(messages, bytes, sharing));
        let (members, changes) = Members::new(ceiling, on_failure, grace);
        for worker in &workers {
            members.admit(worker)?;
        }
        let handle = RuntimeHandle {
            stopping: self.stopping,
            now: CancellationToken::new(),
            members: Arc::new(members),
            producers: Arc::new(producers),
        };
        Ok(Runtime { workers, tasks, changes, handle })
    }
}
