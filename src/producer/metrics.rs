//! Prometheus metrics of producers.
//!
//! | metric | type | labels beside `queue` | meaning |
//! |---|---|---|---|
//! | `dms_producer_messages_total` | counter | `outcome`: `sent`, `failed`, `unsure` | messages by what became of them |
//! | `dms_producer_duplicate_messages_total` | counter | | sent messages that were not stored, because the service had one with the same deduplication key |
//! | `dms_producer_sent_bytes_total` | counter | | bytes of the messages that were stored, as encoded in their requests |
//! | `dms_producer_requests_total` | counter | `result`: `answered`, `failed`, `unsure` | requests, repeated ones included |
//! | `dms_producer_retries_total` | counter | | requests that repeat messages of an earlier one |
//! | `dms_producer_send_duration_seconds` | histogram | | from a message's acceptance to its result, waiting included |
//! | `dms_producer_batch_messages` | histogram | | messages of a batch |
//! | `dms_producer_pending_messages` | gauge | | messages that wait or are on their way |
//! | `dms_producer_pending_bytes` | gauge | | their bytes |

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::error::SendResult;

/// Buckets in seconds, from the OpenTelemetry messaging conventions, and two more for sends that waited for the end of
/// an outage.
const SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];
/// Buckets for the messages of a batch: one for each number.
const MESSAGES: [f64; 10] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];

/// Prometheus metrics of any number of producers. Cloning is cheap.
///
/// ```
/// # use dms_worker::producer::ProducerMetrics;
/// let metrics = ProducerMetrics::new(); // for ProducerBuilder::metrics
/// assert!(metrics.encode().ends_with("# EOF\n"));
/// ```
#[derive(Clone, Default)]
pub struct ProducerMetrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    queue: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    queue: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    queue: String,
    result: &'static str,
}

type Distribution = Family<Labels, Histogram, fn() -> Histogram>;

struct Families {
    messages: Family<OutcomeLabels, Counter>,
    duplicates: Family<Labels, Counter>,
    sent_bytes: Family<Labels, Counter>,
    requests: Family<ResultLabels, Counter>,
    retries: Family<Labels, Counter>,
    duration: Distribution,
    batch: Distribution,
    pending_messages: Family<Labels, Gauge>,
    pending_bytes: Family<Labels, Gauge>,
}

impl Default for Inner {
    fn default() -> Self {
        let families = Families {
            messages: Family::default(),
            duplicates: Family::default(),
            sent_bytes: Family::default(),
            requests: Family::default(),
            retries: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            batch: Family::new_with_constructor(|| Histogram::new(MESSAGES)),
            pending_messages: Family::default(),
            pending_bytes: Family::default(),
        };
        let mut registry = Registry::with_prefix("dms_producer");
        let f = &families;
        registry.register("messages", "Messages by what became of them", f.messages.clone());
        let help = "Sent messages that were not stored, because of their deduplication keys";
        registry.register("duplicate_messages", help, f.duplicates.clone());
        registry.register("sent_bytes", "Bytes of the messages that were stored", f.sent_bytes.clone());
        registry.register("requests", "Requests by result, repeated ones included", f.requests.clone());
        registry.register("retries", "Requests that repeat messages of an earlier one", f.retries.clone());
        registry.register("send_duration_seconds", "From acceptance to result", f.duration.clone());
        registry.register("batch_messages", "Messages of a batch", f.batch.clone());
        registry.register("pending_messages", "Messages that wait or are on their way", f.pending_messages.clone());
        registry.register("pending_bytes", "Bytes that wait or are on their way", f.pending_bytes.clone());
        Self { registry, families }
    }
}

impl ProducerMetrics {
    /// An empty set of metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The metrics as OpenMetrics text (`application/openmetrics-text; version=1.0.0; charset=utf-8`).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    /// The counters of the producer of a queue.
    pub(super) fn counters(&self, queue: &str) -> Counters {
        let f = &self.0.families;
        let queue = queue.to_owned();
        let outcome = |outcome| f.messages.get_or_create_owned(&OutcomeLabels { queue: queue.clone(), outcome });
        let result = |result| f.requests.get_or_create_owned(&ResultLabels { queue: queue.clone(), result });
        let labels = Labels { queue: queue.clone() };
        Counters {
            sent: outcome("sent"),
            failed: outcome("failed"),
            unsure: outcome("unsure"),
            duplicates: f.duplicates.get_or_create_owned(&labels),
            sent_bytes: f.sent_bytes.get_or_create_owned(&labels),
            answered: result("answered"),
            request_failed: result("failed"),
            request_unsure: result("unsure"),
            retries: f.retries.get_or_create_owned(&labels),
            duration: f.duration.get_or_create_owned(&labels),
            batch: f.batch.get_or_create_owned(&labels),
            pending_messages: f.pending_messages.get_or_create_owned(&labels),
            pending_bytes: f.pending_bytes.get_or_create_owned(&labels),
        }
    }
}

impl fmt::Debug for ProducerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerMetrics").finish_non_exhaustive()
    }
}

/// The counters of one producer, looked up once.
#[derive(Debug)]
pub(super) struct Counters {
    sent: Counter,
    duplicates: Counter,
    failed: Counter,
    unsure: Counter,
    sent_bytes: Counter,
    answered: Counter,
    request_failed: Counter,
    request_unsure: Counter,
    retries: Counter,
    duration: Histogram,
    batch: Histogram,
    pending_messages: Gauge,
    pending_bytes: Gauge,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestEnd {
    Answered,
    Failed,
    Unsure,
}

impl Counters {
    /// Counts an accepted message of this size.
    pub(super) fn accepted(&self, bytes: usize) {
        self.pending_messages.inc();
        self.pending_bytes.inc_by(signed(bytes));
    }

    /// Counts a message of this size that is no longer pending.
    pub(super) fn released(&self, bytes: usize) {
        self.pending_messages.dec();
        self.pending_bytes.dec_by(signed(bytes));
    }

    /// Counts the result of a message of this size.
    pub(super) fn settled(&self, result: &SendResult, bytes: usize, took: Duration) {
        match result {
            Ok(sent) => {
                self.sent.inc();
                match sent.duplicate {
                    true => self.duplicates.inc(),
                    false => self.sent_bytes.inc_by(bytes as u64),
                };
            }
            Err(error) if error.is_unsure() => drop(self.unsure.inc()),
            Err(_) => drop(self.failed.inc()),
        }
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a batch that is sent.
    pub(super) fn started(&self, messages: usize) {
        self.batch.observe(u32::try_from(messages).map_or(f64::MAX, f64::from));
    }

    /// Counts a request.
    pub(super) fn requested(&self, end: RequestEnd) {
        match end {
            RequestEnd::Answered => self.answered.inc(),
            RequestEnd::Failed => self.request_failed.inc(),
            RequestEnd::Unsure => self.request_unsure.inc(),
        };
    }

    /// Counts a retry.
    pub(super) fn retried(&self) {
        self.retries.inc();
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
