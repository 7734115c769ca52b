//! Prometheus metrics of workers.
//!
//! | metric | type | labels beside `worker`, `queue`, `group` | meaning |
//! |---|---|---|---|
//! | `dms_worker_messages_received_total` | counter | | messages consumed |
//! | `dms_worker_received_bytes_total` | counter | | bytes of their bodies |
//! | `dms_worker_messages_processed_total` | counter | `outcome` | handler runs by how they ended: `done`, `failed`, `rejected`, `deferred`, `panicked`, `timed_out`, `interrupted`, and `skipped`, `remembered` for those not run |
//! | `dms_worker_process_duration_seconds` | histogram | | how long handlers ran |
//! | `dms_worker_receive_duration_seconds` | histogram | | from a poll to its answer, waiting included |
//! | `dms_worker_polls_total` | counter | `result`: `messages`, `empty`, `error` | polls |
//! | `dms_worker_acks_total` | counter | `result`: `answered`, `late`, `unknown`, `refused` | acknowledgements, one per batch |
//! | `dms_worker_messages_acknowledged_total` | counter | | messages the service settled |
//! | `dms_worker_messages_redelivered_total` | counter | | messages that are redelivered |
//! | `dms_worker_messages_released_total` | counter | | messages handed back without a failure counted |
//! | `dms_worker_message_acks_total` | counter | `result`: `acked`, `returned`, `dead_lettered`, `released`, `late`, `rejected`, `unknown` | messages by their result when their batch was acknowledged |
//! | `dms_worker_redeliveries_total` | counter | `reason`: see [`Redelivery`](crate::worker::Redelivery) | redelivered messages by reason |
//! | `dms_worker_message_lag_seconds` | histogram | | from when a message could be consumed first to its handler; if the server reports it |
//! | `dms_worker_delivery_attempts` | histogram | | the number of the attempt, for messages that were handled |
//! | `dms_worker_stuck_handlers_total` | counter | | handlers that continued after they were stopped |
//! | `dms_worker_in_flight_messages` | gauge | | messages in flight, places reserved by polls included |
//! | `dms_worker_concurrency_limit` | gauge | | the limit of messages in flight |
//! | `dms_worker_last_poll_age_seconds` | gauge | | since the service last answered a poll; absent before the first answer |

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use crate::worker::{
    handle::{Status, WorkerHandle},
    handler::delivery::Origin,
    observe::event::{AckResult, Event, MessageAck, Observer},
};

/// Buckets in seconds, from the OpenTelemetry messaging conventions, and longer ones up to the longest lease.
const BUCKETS: [f64; 17] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0];

/// Buckets of attempts.
const ATTEMPTS: [f64; 7] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0];

/// The metrics of any number of workers; cheap to clone.
///
/// ```
/// use dms_worker::worker::WorkerMetrics;
///
/// let metrics = WorkerMetrics::new();
/// let observer = metrics.observer("orders", "orders", "billing"); // for WorkerBuilder::observer
/// assert!(metrics.encode().ends_with("# EOF\n"));
/// ```
#[derive(Clone, Default)]
pub struct WorkerMetrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
    gauges: Arc<Gauges>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    worker: String,
    queue: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    worker: String,
    queue: String,
    group: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    worker: String,
    queue: String,
    group: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    worker: String,
    queue: String,
    group: String,
    reason: &'static str,
}

/// Histograms of durations, which are created with their buckets.
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

struct Families {
    received: Family<Labels, Counter>,
    received_bytes: Family<Labels, Counter>,
    processed: Family<OutcomeLabels, Counter>,
    process_duration: Durations,
    receive_duration: Durations,
    polls: Family<ResultLabels, Counter>,
    acks: Family<ResultLabels, Counter>,
    acknowledged: Family<Labels, Counter>,
    redelivered: Family<Labels, Counter>,
    released: Family<Labels, Counter>,
    message_acks: Family<ResultLabels, Counter>,
    redeliveries: Family<ReasonLabels, Counter>,
    lag: Durations,
    attempts: Durations,
    stuck: Family<Labels, Counter>,
}

impl Default for Inner {
    fn default() -> Self {
        let durations: fn() -> Histogram = || Histogram::new(BUCKETS);
        let families = Families {
            received: Family::default(),
            received_bytes: Family::default(),
            processed: Family::default(),
            process_duration: Family::new_with_constructor(durations),
            receive_duration: Family::new_with_constructor(durations),
            polls: Family::default(),
            acks: Family::default(),
            acknowledged: Family::default(),
            redelivered: Family::default(),
            released: Family::default(),
            message_acks: Family::default(),
            redeliveries: Family::default(),
            lag: Family::new_with_constructor(durations),
            attempts: Family::new_with_constructor(|| Histogram::new(ATTEMPTS)),
            stuck: Family::default(),
        };
        let gauges = Arc::<Gauges>::default();
        let mut registry = Registry::with_prefix("dms_worker");
        let f = &families;
        registry.register("messages_received", "Messages consumed", f.received.clone());
        registry.register("received_bytes", "Bytes of the bodies consumed", f.received_bytes.clone());
        registry.register("messages_processed", "Handler runs by outcome", f.processed.clone());
        registry.register("process_duration_seconds", "How long handlers ran", f.process_duration.clone());
        registry.register("receive_duration_seconds", "From a poll to its answer", f.receive_duration.clone());
        registry.register("polls", "Polls by result", f.polls.clone());
        registry.register("acks", "Acknowledgements by result, one per batch", f.acks.clone());
        registry.register("messages_acknowledged", "Messages the service settled", f.acknowledged.clone());
        registry.register("messages_redelivered", "Messages that are redelivered", f.redelivered.clone());
        registry.register("messages_released", "Messages handed back, no failure counted", f.released.clone());
        registry.register("message_acks", "Messages by what became of them", f.message_acks.clone());
        registry.register("redeliveries", "Redelivered messages by reason", f.redeliveries.clone());
        registry.register("message_lag_seconds", "From being consumable to the handler", f.lag.clone());
        registry.register("delivery_attempts", "Which attempt the handled messages were on", f.attempts.clone());
        registry.register("stuck_handlers", "Handlers that went on after they were stopped", f.stuck.clone());
        registry.register_collector(Box::new(Collected(gauges.clone())));
        Self { registry, families, gauges }
    }
}

impl WorkerMetrics {
    /// An empty set of metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// An observer that counts under these labels, for
    /// [`WorkerBuilder::observer`](crate::worker::WorkerBuilder::observer).
    pub fn observer(&self, worker: &str, queue: &str, group: &str) -> Arc<dyn Observer> {
        let labels = Labels { worker: worker.to_owned(), queue: queue.to_owned(), group: group.to_owned() };
        Arc::new(Counting::new(&self.0.families, &labels))
    }

    /// Adds the gauges of a worker. They are read whenever the metrics are encoded.
    pub fn watch(&self, handle: WorkerHandle) {
        self.0.gauges.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    /// Removes the gauges of a worker that has ended. Its counters stay, and a worker with the same labels continues them.
    pub fn unwatch(&self, handle: &WorkerHandle) {
        let mut watched = self.0.gauges.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|other| !Arc::ptr_eq(&other.0, &handle.0));
    }

    /// The metrics as OpenMetrics text (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
    }
}

/// The counters of one worker that differ in one more label.
type ByName = Box<dyn Fn(&'static str) -> Counter + Send + Sync>;

fn by_name<L>(family: &Family<L, Counter>, labels: &Labels, with: fn(Labels, &'static str) -> L) -> ByName
where
    L: Clone + Eq + Hash + Send + Sync + 'static,
{
    let (family, labels) = (family.clone(), labels.clone());
    Box::new(move |name| family.get_or_create_owned(&with(labels.clone(), name)))
}

/// The counters of one worker, looked up once because a look-up takes a lock.
struct Counting {
    received: Counter,
    received_bytes: Counter,
    processed: ByName,
    process_duration: Histogram,
    receive_duration: Histogram,
    polls: ByName,
    acks: ByName,
    acknowledged: Counter,
    redelivered: Counter,
    released: Counter,
    message_acks: ByName,
    acked: Counter,
    redeliveries: ByName,
    lag: Histogram,
    attempts: Histogram,
    stuck: Counter,
    done: Counter,
}

impl Counting {
    fn new(families: &Families, labels: &Labels) -> Self {
        let result = |family| {
            by_name(family, labels, |Labels { worker, queue, group }, result| ResultLabels {
                worker,
                queue,
                group,
                result,
            })
        };
        let outcome = |Labels { worker, queue, group }, outcome| OutcomeLabels { worker, queue, group, outcome };
        let reason = |Labels { worker, queue, group }, reason| ReasonLabels { worker, queue, group, reason };
        let processed = by_name(&families.processed, labels, outcome);
        let message_acks = result(&families.message_acks);
        Self {
            received: families.received.get_or_create_owned(labels),
            received_bytes: families.received_bytes.get_or_create_owned(labels),
            process_duration: families.process_duration.get_or_create_owned(labels),
            receive_duration: families.receive_duration.get_or_create_owned(labels),
            polls: result(&families.polls),
            acks: result(&families.acks),
            acknowledged: families.acknowledged.get_or_create_owned(labels),
            redelivered: families.redelivered.get_or_create_owned(labels),
            released: families.released.get_or_create_owned(labels),
            acked: message_acks(MessageAck::Acked.name()),
            message_acks,
            redeliveries: by_name(&families.redeliveries, labels, reason),
            lag: families.lag.get_or_create_owned(labels),
            attempts: families.attempts.get_or_create_owned(labels),
            stuck: families.stuck.get_or_create_owned(labels),
            done: processed("done"),
            processed,
        }
    }
}

impl Observer for Counting {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        match *event {
            Event::Received { messages, bytes, took } => {
                self.received.inc_by(messages as u64);
                self.received_bytes.inc_by(bytes as u64);
                self.receive_duration.observe(took.as_secs_f64());
                (self.polls)(if messages > 0 { "messages" } else { "empty" }).inc();
            }
            Event::PollFailed { .. } => drop((self.polls)("error").inc()),
            Event::Redelivered { reason, .. } => drop((self.redeliveries)(reason.name()).inc()),
            Event::Started { delivery } => {
                if let Some(age) = delivery.age() {
                    self.lag.observe(age.as_secs_f64());
                }
                self.attempts.observe(f64::from(delivery.attempt()));
            }
            Event::Handled { outcome, took, .. } => {
                self.process_duration.observe(took.as_secs_f64());
                match outcome.name() {
                    "done" => self.done.inc(),
                    other => (self.processed)(other).inc(),
                };
            }
            Event::Skipped { .. } => drop((self.processed)("skipped").inc()),
            Event::Remembered { .. } => drop((self.processed)("remembered").inc()),
            Event::Stuck { .. } => drop(self.stuck.inc()),
            Event::Acknowledged { result: MessageAck::Acked, .. } => drop(self.acked.inc()),
            Event::Acknowledged { result, .. } => drop((self.message_acks)(result.name()).inc()),
            Event::Settled { result, done, rest, released } => {
                let (settled, again) = match result {
                    AckResult::Answered { success, fail } => (success, fail.saturating_sub(released)),
                    AckResult::Late | AckResult::Unknown | AckResult::Refused(_) => (0, done + rest),
                };
                (self.acks)(result.name()).inc();
                self.acknowledged.inc_by(settled as u64);
                self.redelivered.inc_by(again as u64);
                if matches!(result, AckResult::Answered { .. }) {
                    self.released.inc_by(released as u64);
                }
            }
        }
    }
}

/// The workers whose gauges are read at each encoding.
#[derive(Debug, Default)]
struct Gauges(Mutex<Vec<WorkerHandle>>);

#[derive(Debug)]
struct Collected(Arc<Gauges>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let handles = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read: Vec<(&WorkerHandle, Status)> = handles.iter().map(|handle| (handle, handle.status())).collect();
        let mut gauge = |name: &str, help: &str, value: &dyn Fn(&WorkerHandle, &Status) -> Option<f64>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (handle, status) in &read {
                if let Some(value) = value(handle, status) {
                    let labels = [("worker", handle.name()), ("queue", handle.queue()), ("group", handle.group())];
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
            Ok::<(), fmt::Error>(())
        };
        gauge("in_flight_messages", "Messages in flight", &|_, status| Some(count(status.in_flight)))?;
        gauge("concurrency_limit", "Messages that may be in flight", &|_, status| Some(count(status.concurrency)))?;
        gauge("failed", "1 while the worker cannot go on, else 0", &|handle, _| {
            Some(count(usize::from(handle.failure().is_some())))
        })?;
        gauge("last_poll_age_seconds", "Since the service last answered a poll", &|_, status| {
            status.last_poll_age.map(|age| age.as_secs_f64())
        })
    }
}

fn count(messages: usize) -> f64 {
    u32::try_from(messages).map_or(f64::MAX, f64::from)
}
