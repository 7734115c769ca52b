//! The controls of a running worker: pause, resume, limits, stop, status. Shared by the worker and its handles.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::worker::{
    WorkerError,
    fetch::rate_limit::{Rate, RateLimit},
    limit::inflight::{Brake, Gate},
    observe::{
        latency::{Latency, Quantiles},
        report::{Tally, WorkerReport},
    },
    settings::{self, InvalidSettings, MaxMessages, Settings},
};

/// What a worker and its handles share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) group: String,
    pub(crate) gate: Arc<Gate>,
    pub(crate) rate_limit: RateLimit,
    /// How many messages a poll asks for.
    max_messages: Mutex<MaxMessages>,
    pub(crate) paused: watch::Sender<bool>,
    /// No more polls.
    pub(crate) stopping: CancellationToken,
    /// No more handlers either.
    pub(crate) interrupt: CancellationToken,
    pub(crate) tally: Arc<Tally>,
    /// How long handlers take.
    pub(crate) latency: Latency,
    pub(crate) health: Health,
    /// Why the worker cannot go on at present.
    failure: Mutex<Option<String>>,
    /// Handlers that go on although they were stopped.
    pub(crate) stuck: AtomicUsize,
    /// What was found likely not meant when the queue was looked up.
    warnings: Mutex<Vec<String>>,
}

impl Control {
    pub(crate) fn new(queue: String, group: String, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            name: settings.name.clone(),
            queue,
            group,
            gate: Gate::new(settings.concurrency, settings.max_in_flight_bytes),
            rate_limit: RateLimit::new(settings.rate_limit),
            max_messages: Mutex::new(settings.max_messages),
            paused: watch::Sender::new(false),
            stopping: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            tally: Arc::default(),
            latency: Latency::default(),
            health: Health::default(),
            failure: Mutex::default(),
            stuck: AtomicUsize::new(0),
            warnings: Mutex::default(),
        })
    }

    /// Whether nothing is to be fetched: the worker stops or is paused, or no message may be in flight.
    pub(crate) fn is_held(&self) -> bool {
        self.stopping.is_cancelled() || *self.paused.borrow() || self.gate.is_shut()
    }

    /// Waits until the worker is held, or until it is not. A stop is for good. Cancel-safe.
    pub(crate) async fn until_held(&self, held: bool) {
        let (mut paused, mut shut) = (self.paused.subscribe(), self.gate.subscribe());
        while self.is_held() != held {
            // The senders live as long as `self`.
            tokio::select! {
                () = self.stopping.cancelled(), if held => {}
                _ = paused.changed() => {}
                _ = shut.changed() => {}
            }
        }
    }

    /// What was found likely not meant when the queue was looked up.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_warnings(&self, warnings: Vec<String>) {
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = warnings;
    }

    /// Notes why the worker cannot go on, or that it can; gives what was noted before.
    pub(crate) fn note_failure(&self, reason: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.failure.lock().unwrap_or_else(PoisonError::into_inner), reason)
    }

    /// The worker can go on: what kept it from that is over.
    pub(crate) fn works(&self) {
        if self.note_failure(None).is_some() {
            tracing::info!(worker = self.name, "the queue and the group are there: the worker goes on");
        }
    }

    /// How many messages a poll asks for.
    pub(crate) fn max_messages(&self) -> MaxMessages {
        *self.max_messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the service last answered a poll, and whether it is being asked.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last_poll: Mutex<Option<Instant>>,
    /// Polls that are out, or that wait to be repeated.
    trying: AtomicUsize,
    /// Why the service refuses the key or the user, while that is waited out.
    refusal: Mutex<Option<String>>,
}

/// A poll that is out, or waits to be repeated.
pub(crate) struct Trying<'a>(&'a Health);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.trying.fetch_sub(1, Relaxed);
    }
}

impl Health {
    /// Counts a poll until the guard is dropped.
    pub(crate) fn trying(&self) -> Trying<'_> {
        self.trying.fetch_add(1, Relaxed);
        Trying(self)
    }

    /// A poll was answered.
    pub(crate) fn polled(&self) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The service refuses the key or the user, and that is waited out until a poll is answered.
    pub(crate) fn refused(&self, reason: &impl ToString) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_string());
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a poll was ever answered.
    pub(crate) fn has_polled(&self) -> bool {
        self.last_poll().is_some()
    }

    /// When a poll was answered last.
    pub(crate) fn last_poll(&self) -> Option<Instant> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches whose acknowledgement is under way: when there are too many, fetching waits.
#[derive(Debug)]
pub(crate) struct Acks {
    pending: watch::Sender<usize>,
}

impl Acks {
    pub(crate) fn new() -> Self {
        Self { pending: watch::Sender::new(0) }
    }

    /// Counts an acknowledgement until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Drop + use<'_> {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self)
    }

    /// Waits until fewer than `limit` acknowledgements are under way. Cancel-safe.
    pub(crate) async fn below(&self, limit: usize) {
        if *self.pending.borrow() < limit {
            return;
        }
        // The sender lives as long as `self`.
        let _ = self.pending.subscribe().wait_for(|pending| *pending < limit).await;
    }
}

struct Pending<'a>(&'a Acks);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.send_modify(|pending| *pending -= 1);
    }
}

/// How many pollers run, so that the surplus can leave one at a time.
#[derive(Debug, Default)]
pub(crate) struct Pollers(AtomicUsize);

impl Pollers {
    /// There are so many now.
    pub(crate) fn set(&self, running: usize) {
        self.0.store(running, Relaxed);
    }

    /// How many there are.
    pub(crate) fn running(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Whether the calling poller may leave because there are more than `wanted`.
    pub(crate) fn leave(&self, wanted: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |running| (running > wanted).then(|| running - 1)).is_ok()
    }
}

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
        self.0.gate.set_max_messages(messages);
    }

    /// Changes about how many bytes of bodies may be in flight. A lower limit lets what is above it finish.
    pub fn set_max_in_flight_bytes(&self, bytes: usize) {
        self.0.gate.set_max_bytes(bytes);
    }

    /// Changes how many messages a poll asks for.
    ///
    /// # Errors
    /// When they are not 1-10.
    pub fn set_max_messages(&self, messages: MaxMessages) -> Result<(), InvalidSettings> {
        settings::check_max_messages(messages)?;
        *self.0.max_messages.lock().unwrap_or_else(PoisonError::into_inner) = messages;
        Ok(())
    }

    /// Changes how many messages are taken per time; `None` is no limit. Without a burst: what a change would give at once could be had
    /// again with the next.
    pub fn set_rate_limit(&self, rate: impl Into<Option<Rate>>) {
        self.0.rate_limit.set(rate.into());
    }

    /// Keeps the messages in flight at `messages` or below, zero stops fetching, for as long as the [`Brake`] lives. Beside
    /// [`pause`](Self::pause) and [`set_concurrency`](Self::set_concurrency), which are for operators, and beside other brakes: the
    /// lowest limit holds.
    pub fn brake(&self, messages: usize) -> Brake {
        self.0.gate.brake(messages)
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
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_failure(&self, error: &WorkerError) {
        self.0.note_failure(Some(error.to_string()));
    }

    /// How the worker is doing.
    pub fn status(&self) -> Status {
        let control = &self.0;
        Status {
            paused: *control.paused.borrow(),
            stopping: control.stopping.is_cancelled(),
            in_flight: control.gate.in_flight(),
            concurrency: control.gate.max_messages(),
            stuck: control.stuck.load(Relaxed),
            polling: control.health.trying.load(Relaxed) > 0,
            last_poll_age: control.health.last_poll().map(|at| at.elapsed()),
            durations: control.latency.quantiles(),
            counts: control.tally.report(false),
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
