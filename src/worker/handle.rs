//! [`WorkerHandle`]: controls a running worker and reads its [`Status`].

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use dms_protocol::settings::InvalidSettings;

use crate::worker::{
    control::Control,
    error::WorkerError,
    fetch::rate_limit::Rate,
    isolation::Isolated,
    limit::{inflight::ConcurrencyCap, shared::SharedLimit},
    observe::{latency::Quantiles, report::WorkerReport},
    settings::values::MaxMessages,
};

/// Controls a running worker. Cheap to clone; made by [`Worker::handle`](crate::worker::Worker::handle).
///
/// ```
/// use dms_worker::{Client, Worker, worker::handler_fn};
///
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let handler = handler_fn(|| async { Ok(()) });
/// let worker = Worker::builder(client).queue("orders").group("billing").handler(handler).build()?;
/// let handle = worker.handle(); // and `tokio::spawn(worker.run(...))`
/// handle.pause();
/// assert!(handle.status().paused);
/// handle.resume();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WorkerHandle(pub(crate) Arc<Control>);

impl WorkerHandle {
    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The queue's name or id, as set in the builder.
    pub fn queue(&self) -> &str {
        &self.0.queue
    }

    /// The consumer group's name or id, as set in the builder.
    pub fn group(&self) -> &str {
        &self.0.group
    }

    /// Stops fetching; messages in flight are finished.
    ///
    /// Polls in flight are ended where the service supports that, and messages that they still bring are handed back
    /// without counting a failure. Elsewhere their messages are handled.
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Starts fetching again.
    pub fn resume(&self) {
        self.0.paused.send_replace(false);
    }

    /// Sets the maximum number of messages in flight; zero pauses the worker. If the new limit is lower, the messages
    /// above it are finished.
    pub fn set_concurrency(&self, messages: usize) {
        self.0.inflight.set_max_messages(messages);
    }

    /// Sets the maximum bytes of bodies in flight. If the new limit is lower, the messages above it are finished.
    pub fn set_max_in_flight_bytes(&self, bytes: usize) {
        self.0.inflight.set_max_bytes(bytes);
    }

    /// Sets the number of messages that a poll asks for.
    ///
    /// # Errors
    /// If the number is not 1-10.
    pub fn set_max_messages(&self, messages: MaxMessages) -> Result<(), InvalidSettings> {
        messages.check().map_err(InvalidSettings::from)?;
        self.0.set_max_messages(messages);
        Ok(())
    }

    /// Sets the rate limit; `None` is no limit. A new limit starts without a burst, because otherwise each change would
    /// give another one.
    pub fn set_rate_limit(&self, rate: impl Into<Option<Rate>>) {
        self.0.rate_limit.set(rate.into());
    }

    /// Limits the messages in flight to `messages` until the returned [`ConcurrencyCap`] is dropped; zero stops
    /// fetching.
    ///
    /// This is for code; [`pause`](Self::pause) and [`set_concurrency`](Self::set_concurrency) are for operators. The
    /// lowest of all limits applies.
    pub fn cap_concurrency(&self, messages: usize) -> ConcurrencyCap {
        self.0.inflight.cap_concurrency(messages)
    }

    /// Sets the [grace period](crate::worker::WorkerBuilder::shutdown_grace) of the shutdown. A shutdown that has
    /// started keeps the period it started with.
    pub fn set_shutdown_grace(&self, grace: Duration) {
        self.0.set_grace(grace);
    }

    /// Starts the shutdown, like the future given to [`Worker::run`](crate::worker::Worker::run). Calling it twice is
    /// safe.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Starts the shutdown without a grace period, or ends the grace period of one that has started. Running handlers
    /// are stopped at once, and finished messages are acknowledged.
    pub fn stop_now(&self) {
        self.0.stopping.cancel();
        self.0.interrupt.cancel();
    }

    /// Settings that are probably a mistake on the worker's queue, with the remedy. Empty until the queue was looked
    /// up.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    /// Why the service refuses the key or the user, while the worker waits for that to change.
    pub fn refusal(&self) -> Option<String> {
        self.0.health.refusal()
    }

    /// Why the worker cannot continue at present, for example because its queue was deleted. The worker keeps looking
    /// up its queue and group; `None` while it works.
    pub fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    /// The grace period of the shutdown.
    pub(crate) fn shutdown_grace(&self) -> Duration {
        self.0.grace()
    }

    /// Takes part in a limit that other workers share.
    pub(crate) fn join_shared_limit(&self, ceiling: &Arc<SharedLimit>) {
        self.0.inflight.join(|| ceiling.join(self.0.weight));
    }

    /// Sets whether the worker waits for a queue or group that does not exist, and retries after a refusal, instead of ending with an
    /// error.
    pub(crate) fn set_persistent(&self, persistent: bool) {
        self.0.persistent.store(persistent, Relaxed);
    }

    /// Leaves the shared limit, because the worker has ended.
    pub(crate) fn leave_shared_limit(&self) {
        self.0.inflight.leave();
    }

    pub(crate) fn set_failure(&self, error: &WorkerError) {
        self.0.set_failure(Some(error.to_string()));
    }

    /// The current state of the worker.
    pub fn status(&self) -> Status {
        let control = &self.0;
        Status {
            paused: *control.paused.borrow(),
            stopping: control.stopping.is_cancelled(),
            in_flight: control.inflight.in_flight(),
            concurrency: control.inflight.max_messages(),
            stuck: control.stuck.load(Relaxed),
            polling: control.health.trying.load(Relaxed) > 0,
            last_poll_age: control.health.last_poll().map(|at| at.elapsed()),
            durations: control.latency.quantiles(),
            isolated: *control.isolated.lock().unwrap_or_else(PoisonError::into_inner),
            counts: control.counters.report(false),
        }
    }
}

/// A snapshot of a running worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether fetching is paused.
    pub paused: bool,
    /// Whether the shutdown has begun.
    pub stopping: bool,
    /// Messages in flight, including the capacity that polls have reserved.
    pub in_flight: usize,
    /// The maximum number of messages in flight.
    pub concurrency: usize,
    /// Handlers that continue although they were stopped, because they block their thread.
    pub stuck: usize,
    /// Whether a poll is in flight, or waits to be retried. If not, a high `last_poll_age` is no bad sign: the worker
    /// waits for messages in flight.
    pub polling: bool,
    /// The time since the service last answered a poll; `None` before the first answer.
    pub last_poll_age: Option<Duration>,
    /// The durations of recent handler calls; `None` before the first one.
    pub durations: Option<Quantiles>,
    /// The messages that are fetched one at a time, because they may fail together with another one.
    pub isolated: Isolated,
    /// The counts so far; `drained` is not set yet.
    pub counts: WorkerReport,
}
