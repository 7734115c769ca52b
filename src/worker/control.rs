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

use super::{
    gate::Gate,
    latency::{Latency, Quantiles},
    report::{Report, Tally},
};

/// What a worker and its handles share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) group: String,
    pub(crate) gate: Arc<Gate>,
    pub(crate) paused: watch::Sender<bool>,
    /// No more polls.
    pub(crate) stopping: CancellationToken,
    /// No more handlers either.
    pub(crate) interrupt: CancellationToken,
    pub(crate) tally: Arc<Tally>,
    /// How long handlers take.
    pub(crate) latency: Latency,
    pub(crate) health: Health,
}

impl Control {
    pub(crate) fn new(name: String, queue: String, group: String, concurrency: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            queue,
            group,
            gate: Gate::new(concurrency, max_bytes),
            paused: watch::Sender::new(false),
            stopping: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            tally: Arc::default(),
            latency: Latency::default(),
            health: Health::default(),
        })
    }
}

/// When the service last answered a poll.
#[derive(Debug, Default)]
pub(crate) struct Health {
    last_poll: Mutex<Option<Instant>>,
}

impl Health {
    /// A poll was answered.
    pub(crate) fn polled(&self) {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a poll was ever answered.
    pub(crate) fn has_polled(&self) -> bool {
        self.last_poll().is_some()
    }

    fn last_poll(&self) -> Option<Instant> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Batches whose acknowledgement is under way: when there are too many, fetching waits.
#[derive(Debug)]
pub(crate) struct Acks {
    pending: watch::Sender<usize>,
    limit: usize,
}

impl Acks {
    /// At most `limit` acknowledgements under way before polls wait.
    pub(crate) fn new(limit: usize) -> Self {
        Self { pending: watch::Sender::new(0), limit: limit.max(1) }
    }

    /// Counts an acknowledgement until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Drop + use<'_> {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self)
    }

    /// Waits until the acknowledgements keep up. Cancel-safe.
    pub(crate) async fn below_limit(&self) {
        // The sender lives as long as `self`.
        let _ = self.pending.subscribe().wait_for(|pending| *pending < self.limit).await;
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

    /// Whether the calling poller may leave because there are more than `wanted`.
    pub(crate) fn leave(&self, wanted: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |running| (running > wanted).then(|| running - 1)).is_ok()
    }
}

/// Steers a running worker; cheap to clone, from [`Worker::handle`](super::Worker::handle).
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

    /// Stops fetching; what is in flight finishes. Polls that are out still bring what they bring.
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

    /// Begins the shutdown, as the future given to [`Worker::run`](super::Worker::run) does. Doing it twice is safe.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// How the worker is doing.
    pub fn status(&self) -> Status {
        let control = &self.0;
        Status {
            paused: *control.paused.borrow(),
            stopping: control.stopping.is_cancelled(),
            in_flight: control.gate.in_flight(),
            concurrency: control.gate.max_messages(),
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
    /// How long ago the service last answered a poll; `None` before the first answer.
    pub last_poll_age: Option<Duration>,
    /// How long the recent handlers took; `None` before the first.
    pub durations: Option<Quantiles>,
    /// The counts so far; `drained` is not known yet.
    pub counts: Report,
}
