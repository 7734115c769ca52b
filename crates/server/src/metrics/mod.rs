//! The metrics of the server, with names as Prometheus users expect them.
//!
//! | file | contents |
//! |---|---|
//! | `broker` | counters of the broker, asked for at each scrape |
//! | `groups` | queues and groups, as a scrape sees them |
//! | `disk_space` | free space of the disk |
//! | `exposition` | the text formats |
//! | `more` | metrics of the process around the server |

pub(crate) mod broker;
pub(crate) mod disk_space;
pub mod exposition;
pub(crate) mod groups;
mod more;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub(crate) use self::more::MoreMetrics;
use self::{broker::Scrape, groups::SeenQueues};

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

/// The values of the gauges in one scrape.
pub(crate) struct ScrapedGauges {
    /// The queues and groups.
    pub(crate) queues: SeenQueues,
    /// The size of the data directory in bytes.
    pub(crate) storage: u64,
}

/// Counters and durations of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    requests: Family<ResponseLabels, Counter>,
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    long_polls: Gauge,
    storage: Gauge,
    produced: Counter,
    duplicates: Counter,
    consumed: Counter,
    acknowledged: Counter,
    failed: Counter,
    refused_signatures: Family<ReasonLabels, Counter>,
    refused_logins: Counter,
    /// The queues of the scrape in progress, for the collector of the broker.
    pub(crate) seen_queues: Scrape,
    /// Held from setting the gauges until they are encoded, because another scrape would clear them in between.
    scraping: Arc<Mutex<()>>,
}

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            long_polls: Gauge::default(),
            storage: Gauge::default(),
            produced: Counter::default(),
            duplicates: Counter::default(),
            consumed: Counter::default(),
            acknowledged: Counter::default(),
            failed: Counter::default(),
            refused_signatures: Family::default(),
            refused_logins: Counter::default(),
            seen_queues: Scrape::default(),
            scraping: Arc::default(),
        }
    }

    /// Registers all metrics under their public names.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("dms_server_produced_messages", "Messages taken from producers", &self.produced);
        let help = "Messages that were not stored, because of their deduplication keys";
        counter("dms_server_duplicate_messages", help, &self.duplicates);
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
        registry.register("dms_server_storage_bytes", "Size of the data directory; 0 in memory", self.storage.clone());
        registry.register("dms_server_long_polls", "Consume calls that wait for a message", self.long_polls.clone());
        registry.register("dms_server_http_requests", "Requests by operation and status", self.requests.clone());
        let help = "Time from a request's head to its answer, in seconds";
        registry.register("dms_server_http_request_duration_seconds", help, self.durations.clone());
    }

    /// Encodes the registry as OpenMetrics text with the gauges in `seen`. Concurrent scrapes each get their own values.
    pub(crate) fn scrape(&self, registry: &Registry, seen: ScrapedGauges) -> Result<String, fmt::Error> {
        let _scraping = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = seen.queues.queues.iter().flat_map(|queue| &queue.groups);
        self.long_polls.set(signed(groups.map(|group| group.polls).sum()));
        self.storage.set(signed(seen.storage));
        self.seen_queues.set(seen.queues);
        let mut body = String::new();
        let encoded = text::encode(&mut body, registry);
        // Thousands of queues are not kept until the next scrape.
        self.seen_queues.set(SeenQueues::default());
        encoded.map(|()| body)
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

    /// Counts stored messages, and duplicates that were not stored.
    pub(crate) fn produced(&self, messages: usize, duplicates: usize) {
        self.produced.inc_by(messages as u64);
        if duplicates > 0 {
            self.duplicates.inc_by(duplicates as u64);
        }
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
    use std::{collections::HashMap, thread};

    use super::*;
    use crate::broker::{Broker, GroupOverview, QueueOverview, RetentionPolicy, embedded::EmbeddedBroker};
    use dms_protocol::queue::{ConsumerGroup, GroupId, ProjectId, Queue, QueueId, QueueMode};

    fn queue(name: &str, groups: u64) -> QueueOverview {
        let group = |number: u64| GroupOverview {
            group: {
                let mut group = ConsumerGroup::new(GroupId::new(format!("{name}-{number}")), format!("g{number}"));
                group.available_messages = number;
                group
            },
            in_flight: 0,
            leases: 0,
            consumed_per_second: 0.0,
            polls: 1,
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
            entered: 3,
            entered_per_second: 0.0,
            delayed: 0,
            damaged_delayed: 0,
            groups: (0..groups).map(group).collect(),
        }
    }

    async fn registry(metrics: &ServerMetrics) -> Registry {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let broker: Arc<dyn Broker> =
            Arc::new(EmbeddedBroker::in_memory(Default::default(), crate::clock::Clock::default()).await);
        broker::register(&mut registry, &broker, metrics.seen_queues.clone());
        registry
    }

    fn seen(queues: Vec<QueueOverview>, max_groups: usize) -> ScrapedGauges {
        let oldest = HashMap::from([(GroupId::new("a-1"), Duration::from_millis(1_500))]);
        let queues = SeenQueues { queues: queues.into(), oldest: Arc::new(oldest), max_groups, waiting_schedules: 0 };
        ScrapedGauges { queues, storage: 0 }
    }

    #[tokio::test]
    async fn scrapes_at_the_same_time_each_show_what_they_have_seen() {
        let metrics = ServerMetrics::new();
        let registry = registry(&metrics).await;
        thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let (metrics, registry) = (&metrics, &registry);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let text = metrics.scrape(registry, seen(vec![queue(name, 20)], 100)).unwrap_or_default();
                        let lines = |part: &str| text.lines().filter(|line| line.contains(part)).count();
                        assert_eq!(lines("dms_server_queue_messages{"), 80, "{text}");
                        assert_eq!(lines("queue=\""), lines(&format!("queue=\"{name}\"")), "{text}");
                    }
                });
            }
        });
    }

    #[tokio::test]
    async fn groups_beyond_the_limit_share_their_series() {
        let metrics = ServerMetrics::new();
        let registry = registry(&metrics).await;
        let scrape = |max| metrics.scrape(&registry, seen(vec![queue("a", 2), queue("b", 3)], max)).unwrap_or_default();
        let (some, none) = (scrape(3), scrape(0));
        for line in [
            r#"dms_server_queue_messages{project="p",queue="b",group="g0",state="ready"} 0"#,
            r#"dms_server_queue_messages{project="(other)",queue="(other)",group="(other)",state="ready"} 3"#,
            r#"dms_server_group_consumers{project="(other)",queue="(other)",group="(other)",state="waiting"} 2"#,
            r#"dms_server_oldest_unacked_age_seconds{project="p",queue="a",group="g1"} 1.5"#,
            r#"dms_server_queue_produced_messages_total{project="p",queue="b"} 3"#,
            "dms_server_long_polls 5",
        ] {
            assert!(some.contains(&format!("\n{line}\n")), "{line}: {some}");
        }
        assert!(!none.contains(r#"queue="a""#), "{none}");
        let other = r#"dms_server_oldest_unacked_age_seconds{project="(other)",queue="(other)",group="(other)"} 1.5"#;
        assert!(none.contains(other), "{none}");
    }

    /// Prometheus gives no quantile of a histogram whose last bucket is not infinite.
    #[tokio::test]
    async fn every_histogram_ends_with_an_infinite_bucket() {
        let metrics = ServerMetrics::new();
        metrics.answered("send", 201, Duration::from_millis(3));
        let text = metrics.scrape(&registry(&metrics).await, seen(Vec::new(), 0)).unwrap_or_default();
        let histograms = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
        let mut checked = 0;
        for name in histograms {
            let mut buckets = text.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{")));
            let last = buckets.next_back().unwrap_or_else(|| panic!("{name} has no buckets: {text}"));
            assert!(last.contains(r#"le="+Inf""#), "{last}");
            checked += 1;
        }
        assert_eq!(checked, 2);
    }
}
