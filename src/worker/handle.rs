//! [`WorkerHandle`]: steers a running worker, and reads its [`Status`].

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::worker::{
    control::Control,
    error::WorkerError,
    fetch::rate_limit::Rate,
    limit::inflight::ConcurrencyCap,
    observe::{latency::Quantiles, report::WorkerReport},
    settings::{invalid::InvalidSettings, values::MaxMessages},
};

/// Steers a running worker; cheap to clone, from [`Worker::handle`](crate::worker::Worker::handle).
#[derive(Clone, Debug)]
pub struct WorkerHandle(pub(crate) Arc<Control>);

impl WorkerHandle {
    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The queue, as the worker was given it.
    pub fn queue(&self) -> &str {
        &self.0.queue
    }

    /// The consumer group, as the worker was given it.
    pub fn group(&self) -> &str {
        &self.0.group
    }

    /// Stops fetching; what is in flight finishes. Polls in flight are ended where the service can do that, and what they still bring is
    /// handed back without a failure counted; elsewhere they bring what they bring, and it is handled.
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Fetches again.
    pub fn resume(&self) {
        self.0.paused.send_replace(false);
    }

    /// Changes how many messages may be in flight; zero behaves as a pause. A lower limit lets those above it finish.
    pub fn set_concurrency(&self, messages: usize) {
        self.0.inflight.set_max_messages(messages);
    }

    /// Changes about how many bytes of bodies may be in flight. A lower limit lets what is above it finish.
    pub fn set_max_in_flight_bytes(&self, bytes: usize) {
        self.0.inflight.set_max_bytes(bytes);
    }

    /// Changes how many messages a poll asks for.
    ///
    /// # Errors
    /// When they are not 1-10.
    pub fn set_max_messages(&self, messages: MaxMessages) -> Result<(), InvalidSettings> {
        messages.check()?;
        self.0.set_max_messages(messages);
        Ok(())
    }

    /// Changes how many messages are taken per time; `None` is no limit. Without a burst: what a change would give at once could be had
    /// again with the next.
    pub fn set_rate_limit(&self, rate: impl Into<Option<Rate>>) {
        self.0.rate_limit.set(rate.into());
    }

    /// Keeps the messages in flight at `messages` or below, zero stops fetching, for as long as the [`ConcurrencyCap`] lives. Beside
    /// [`pause`](Self::pause) and [`set_concurrency`](Self::set_concurrency), which are for operators, and beside other brakes: the
    /// lowest limit holds.
    pub fn cap_concurrency(&self, messages: usize) -> ConcurrencyCap {
        self.0.inflight.cap_concurrency(messages)
    }

    /// Begins the shutdown, as the future given to [`Worker::run`](crate::worker::Worker::run) does. Doing it twice is safe.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// As [`stop`](Self::stop), without a grace period, or cutting it short: running handlers are stopped at once, and what is
    /// finished is acknowledged.
    pub fn stop_now(&self) {
        self.0.stopping.cancel();
        self.0.interrupt.cancel();
    }

    /// What will happen on the worker's queue that is likely not meant, and what to set; known once the queue was looked up.
    pub fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    /// Why the service refuses the key or the user, while the worker waits that out. `None` when it does not.
    pub fn refusal(&self) -> Option<String> {
        self.0.health.refusal()
    }

    /// Why the worker cannot go on at present: its queue or group was deleted, say. It looks them up again; `None` while it works.
    pub fn failure(&self) -> Option<String> {
        self.0.failure()
    }

    pub(crate) fn set_failure(&self, error: &WorkerError) {
        self.0.set_failure(Some(error.to_string()));
    }

    /// How the worker is doing.
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
            counts: control.counters.report(false),
        }
    }
}

/// A look at a running worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether fetching is paused.
    pub paused: bool,
    /// Whether the shutdown has begun.
    pub stopping: bool,
    /// Messages in flight, places reserved by polls included.
    pub in_flight: usize,
    /// How many messages may be in flight.
    pub concurrency: usize,
    /// Handlers that go on although they were stopped: they block their thread.
    pub stuck: usize,
    /// Whether a poll is out, or waits to be repeated after a failure. Without one, an old `last_poll_age` is no bad sign: everything
    /// waits for what is in flight.
    pub polling: bool,
    /// How long ago the service last answered a poll; `None` before the first answer.
    pub last_poll_age: Option<Duration>,
    /// How long the recent handlers took; `None` before the first.
    pub durations: Option<Quantiles>,
    /// The counts so far; `drained` is not known yet.
    pub counts: WorkerReport,
}
