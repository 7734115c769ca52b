//! The metrics of the server, with names as Prometheus users expect them.
//!
//! | file | contents |
//! |---|---|
//! | `broker` | counters of the broker, asked for at each scrape |
//! | `disk_space` | free space of the disk |
//! | `exposition` | the text formats |

pub(crate) mod broker;
pub(crate) mod disk_space;
pub mod exposition;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::broker::SeenQueues;
use crate::broker::{GroupOverview, QueueOverview};
use dms_protocol::queue::GroupId;

/// Upper bounds of the duration histogram, in seconds: from a cached read to the longest long poll.
const BUCKETS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResponseLabels {
    operation: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GroupLabels {
    project: String,
    queue: String,
    group: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    #[prometheus(flatten)]
    group: GroupLabels,
    state: &'static str,
}

/// The values of the gauges in one scrape.
pub(crate) struct ScrapedGauges<'a> {
    pub(crate) queues: &'a Arc<[QueueOverview]>,
    /// The age of the first message that a group has not settled.
    pub(crate) oldest: &'a HashMap<GroupId, Duration>,
    /// The size of the data directory in bytes.
    pub(crate) storage: u64,
}

/// Counters and durations of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    requests: Family<ResponseLabels, Counter>,
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    long_polls: Gauge,
    messages: Family<StateLabels, Gauge>,
    oldest: Family<GroupLabels, Gauge<f64, AtomicU64>>,
    damaged: Family<GroupLabels, Gauge>,
    storage: Gauge,
    produced: Counter,
    consumed: Counter,
    acknowledged: Counter,
    failed: Counter,
    refused_signatures: Family<ReasonLabels, Counter>,
    refused_logins: Counter,
    /// The queues of the scrape in progress, for the collector of the broker.
    pub(crate) seen_queues: SeenQueues,
    /// Held from setting the gauges until they are encoded, because another scrape would clear them in between.
    scraping: Arc<Mutex<()>>,
}

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            long_polls: Gauge::default(),
            messages: Family::default(),
            oldest: Family::default(),
            damaged: Family::default(),
            storage: Gauge::default(),
            produced: Counter::default(),
            consumed: Counter::default(),
            acknowledged: Counter::default(),
            failed: Counter::default(),
            refused_signatures: Family::default(),
            refused_logins: Counter::default(),
            seen_queues: SeenQueues::default(),
            scraping: Arc::default(),
        }
    }

    /// Registers all metrics under their public names.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("dms_server_produced_messages", "Messages taken from producers", &self.produced);
        counter("dms_server_consumed_messages", "Messages handed out, redeliveries included", &self.consumed);
        counter("dms_server_acked_messages", "Messages settled by an acknowledgement", &self.acknowledged);
        counter("dms_server_failed_messages", "Messages failed by an acknowledgement", &self.failed);
        counter(
            "dms_server_refused_logins",
            "Token requests with a wrong user, password or project",
            &self.refused_logins,
        );
        let help = "Requests refused for their signature, by reason";
        registry.register("dms_server_refused_signatures", help, self.refused_signatures.clone());
        let help = "Messages of a group by state, as of this scrape";
        registry.register("dms_server_queue_messages", help, self.messages.clone());
        let help = "Age of the oldest message that a group has not settled, in seconds";
        registry.register("dms_server_oldest_unacked_age_seconds", help, self.oldest.clone());
        let help = "Messages of a group that are set aside because they are damaged on the disk, as of this scrape";
        registry.register("dms_server_damaged_messages", help, self.damaged.clone());
        registry.register("dms_server_storage_bytes", "Size of the data directory; 0 in memory", self.storage.clone());
        registry.register("dms_server_long_polls", "Consume calls that wait for a message", self.long_polls.clone());
        registry.register("dms_server_http_requests", "Requests by operation and status", self.requests.clone());
        let help = "Time from a request's head to its answer, in seconds";
        registry.register("dms_server_http_request_duration_seconds", help, self.durations.clone());
    }

    /// Encodes the registry as OpenMetrics text with the gauges in `seen`. Concurrent scrapes each get their own values.
    pub(crate) fn scrape(&self, registry: &Registry, seen: &ScrapedGauges<'_>) -> Result<String, fmt::Error> {
        let _scraping = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        self.seen_queues.set(Arc::clone(seen.queues));
        self.observe(seen.queues, seen.oldest, seen.storage);
        let mut body = String::new();
        text::encode(&mut body, registry)?;
        Ok(body)
    }

    fn observe(&self, queues: &[QueueOverview], oldest: &HashMap<GroupId, Duration>, storage: u64) {
        self.messages.clear();
        self.oldest.clear();
        self.damaged.clear();
        for queue in queues {
            for group in &queue.groups {
                self.observe_group(queue, group, oldest.get(&group.group.id));
            }
        }
        let waiting: u64 = queues.iter().flat_map(|queue| &queue.groups).map(|group| group.polls).sum();
        self.long_polls.set(signed(waiting));
        self.storage.set(signed(storage));
    }

    fn observe_group(&self, queue: &QueueOverview, group: &GroupOverview, oldest: Option<&Duration>) {
        let labels = GroupLabels {
            project: queue.project.to_string(),
            queue: queue.queue.name.clone(),
            group: group.group.name.clone(),
        };
        let set = |state, count| {
            let labels = StateLabels { group: labels.clone(), state };
            self.messages.get_or_create(&labels).set(signed(count));
        };
        set("ready", group.group.available_messages);
        set("in_flight", group.in_flight);
        set("delayed", queue.delayed);
        set("dead", group.group.available_dead_letters.unwrap_or(0));
        // Delayed messages belong to the queue. Every group will miss a damaged one.
        let damaged = group.damaged + group.damaged_dead_letters + queue.damaged_delayed;
        self.damaged.get_or_create(&labels).set(signed(damaged));
        self.oldest.get_or_create(&labels).set(oldest.map_or(0.0, Duration::as_secs_f64));
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, operation: &'static str, code: u16, took: Duration) {
        self.requests.get_or_create(&ResponseLabels { operation, code }).inc();
        self.durations.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused for its signature.
    pub(crate) fn refused_signature(&self, reason: &'static str) {
        self.refused_signatures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a token request with a wrong user, password or project.
    pub(crate) fn refused_login(&self) {
        self.refused_logins.inc();
    }

    /// Counts stored messages.
    pub(crate) fn produced(&self, messages: usize) {
        self.produced.inc_by(messages as u64);
    }

    /// Counts messages handed out.
    pub(crate) fn consumed(&self, messages: usize) {
        self.consumed.inc_by(messages as u64);
    }

    /// Counts messages that an acknowledgement settled and failed.
    pub(crate) fn settled(&self, success: usize, fail: usize) {
        self.acknowledged.inc_by(success as u64);
        self.failed.inc_by(fail as u64);
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::broker::RetentionPolicy;
    use dms_protocol::queue::{ConsumerGroup, ProjectId, Queue, QueueId, QueueMode};

    fn queue(name: &str) -> QueueOverview {
        let group = |number: u64| GroupOverview {
            group: {
                let mut group = ConsumerGroup::new(GroupId::new(format!("{name}-{number}")), format!("g{number}"));
                group.available_messages = number;
                group
            },
            in_flight: 0,
            consumed_per_second: 0.0,
            polls: 0,
            expired_unread: 0,
            expired_dead_letters: 0,
            damaged: 0,
            damaged_dead_letters: 0,
        };
        let mut queue = Queue::new(QueueId::new(name), name, QueueMode::Normal);
        queue.group_count = 20;
        QueueOverview {
            project: ProjectId::new("p"),
            queue,
            retention: Duration::ZERO,
            delete_when_settled: false,
            retention_set: RetentionPolicy::default(),
            entered: 0,
            entered_per_second: 0.0,
            delayed: 0,
            damaged_delayed: 0,
            groups: (0..20).map(group).collect(),
        }
    }

    #[test]
    fn scrapes_at_the_same_time_each_show_what_they_have_seen() {
        let (metrics, mut registry) = (ServerMetrics::new(), Registry::default());
        metrics.register(&mut registry);
        thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let (metrics, registry) = (&metrics, &registry);
                scope.spawn(move || {
                    let (queues, oldest) = (Arc::from([queue(name)]), HashMap::new());
                    for _ in 0..200 {
                        let seen = ScrapedGauges { queues: &queues, oldest: &oldest, storage: 0 };
                        let text = metrics.scrape(registry, &seen).unwrap_or_default();
                        let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
                        assert_eq!(lines("dms_server_queue_messages{"), 80, "{text}");
                        assert_eq!(lines(&format!("queue=\"{name}\"")), 120, "{text}");
                    }
                });
            }
        });
    }
}
