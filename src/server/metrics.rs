//! The server's own metrics, in the names that Prometheus users expect.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::queue::{ConsumerGroup, ProjectId};

/// Upper bounds of the duration histogram, in seconds: from a cached read to the longest long poll.
const BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    operation: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Messages {
    project: String,
    queue: String,
    group: String,
    state: &'static str,
}

/// Counters and durations of one server.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<Answered, Counter>,
    durations: Family<Operation, Histogram, fn() -> Histogram>,
    long_polls: Gauge,
    messages: Family<Messages, Gauge>,
    produced: Counter,
    consumed: Counter,
    acknowledged: Counter,
    failed: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            long_polls: Gauge::default(),
            messages: Family::default(),
            produced: Counter::default(),
            consumed: Counter::default(),
            acknowledged: Counter::default(),
            failed: Counter::default(),
        }
    }

    /// Puts all of them into `registry` under their public names.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("dms_server_produced_messages", "Messages taken from producers", &self.produced);
        counter("dms_server_consumed_messages", "Messages handed out, redeliveries included", &self.consumed);
        counter("dms_server_acked_messages", "Messages settled by an acknowledgement", &self.acknowledged);
        counter("dms_server_failed_messages", "Messages failed by an acknowledgement", &self.failed);
        let help = "Messages of a group by state, as of this scrape";
        registry.register("dms_server_queue_messages", help, self.messages.clone());
        registry.register("dms_server_long_polls", "Consume calls being answered or waiting", self.long_polls.clone());
        registry.register("dms_server_http_requests", "Requests by operation and status", self.requests.clone());
        let help = "Time from a request's head to its answer, in seconds";
        registry.register("dms_server_http_request_duration_seconds", help, self.durations.clone());
    }

    /// Sets a group's gauges.
    pub(crate) fn group(&self, project: &ProjectId, queue: &str, group: &ConsumerGroup) {
        let set = |state, count: u64| {
            let labels =
                Messages { project: project.to_string(), queue: queue.to_owned(), group: group.name.clone(), state };
            self.messages.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set("ready", group.available_messages);
        set("dead", group.available_dead_letters.unwrap_or(0));
    }

    /// Forgets the gauges of all groups: some may be deleted.
    pub(crate) fn clear_groups(&self) {
        self.messages.clear();
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, operation: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&Answered { operation, code }).inc();
        self.durations.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    /// Counts stored messages.
    pub(crate) fn produced(&self, messages: usize) {
        self.produced.inc_by(messages as u64);
    }

    /// Counts messages handed out.
    pub(crate) fn consumed(&self, messages: usize) {
        self.consumed.inc_by(messages as u64);
    }

    /// Counts what an acknowledgement settled and failed.
    pub(crate) fn settled(&self, success: usize, fail: usize) {
        self.acknowledged.inc_by(success as u64);
        self.failed.inc_by(fail as u64);
    }

    /// Counts a consume call as waiting until the answer is dropped.
    pub(crate) fn long_poll(&self) -> impl Drop + use<> {
        self.long_polls.inc();
        Waiting(self.long_polls.clone())
    }
}

struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}
