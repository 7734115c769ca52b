//! The statistics of the broker as metrics.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    broker::{Broker, ClusterCounters, Histogram, ReasonCounts, ScheduleStats},
    metrics::groups::SeenQueues,
};

/// The queues of the scrape in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape(Arc<Mutex<SeenQueues>>);

impl Scrape {
    /// Replaces the queues that the next encoding of the registry shows.
    pub(crate) fn set(&self, queues: SeenQueues) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    fn get(&self) -> SeenQueues {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks the broker at each scrape. The overview of the queues comes from the scrape itself, because it is expensive.
#[derive(Debug)]
struct BrokerCollector {
    broker: Arc<dyn Broker>,
    scrape: Scrape,
}

/// Registers the statistics of a broker under their public names.
pub(crate) fn register(registry: &mut Registry, broker: &Arc<dyn Broker>, scrape: Scrape) {
    registry.register_collector(Box::new(BrokerCollector { broker: Arc::clone(broker), scrape }));
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.broker.stats();
        let help = "Messages and dead letters handed out again";
        counter(&mut encoder, "dms_server_redeliveries", help, stats.redeliveries)?;
        let help = "Messages that became dead letters";
        counter(&mut encoder, "dms_server_dead_letters", help, stats.dead_letters)?;
        by_reason(&mut encoder, &stats.dead_letter_reasons)?;
        let seen = self.scrape.get();
        schedules(&mut encoder, stats.schedules, seen.waiting_schedules as u64)?;
        seen.encode(&mut encoder)?;
        durations(&mut encoder, &stats.syncs)?;
        if let Some(counters) = self.broker.cluster_counters() {
            cluster(&mut encoder, &counters)?;
        }
        let troubles = self.broker.storage_troubles();
        let help = "1 while commits or reads fail, or the index does not take in what the log has, else 0";
        gauge(&mut encoder, "dms_server_storage_failing", help, !troubles.is_empty())?;
        let help = "1 while new messages are refused or the index is behind because the disk is full, else 0";
        gauge(&mut encoder, "dms_server_storage_full", help, troubles.iter().any(|trouble| trouble.is_disk_full))
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, is_so: bool) -> fmt::Result {
    let gauge = ConstGauge::new(i64::from(is_so));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

/// The schedules that this server drives, and their ticks.
fn schedules(encoder: &mut DescriptorEncoder<'_>, stats: ScheduleStats, waiting: u64) -> fmt::Result {
    let help = "Schedules that this server drives, by state; waiting: of the configuration, without their queue; late: the store cannot take their message";
    let name = "dms_server_schedules";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (state, count) in
        [("active", stats.active), ("paused", stats.paused), ("waiting", waiting), ("late", stats.late)]
    {
        let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        gauge.encode(metric.encode_family(&[("state", state)])?)?;
    }
    counter(encoder, "dms_server_schedule_ticks", "Ticks of schedules that sent their message", stats.sent)?;
    let help = "Ticks of schedules that were missed and sent nothing";
    counter(encoder, "dms_server_schedule_missed_ticks", help, stats.missed)
}

/// A server alone has none of them.
fn cluster(encoder: &mut DescriptorEncoder<'_>, counters: &ClusterCounters) -> fmt::Result {
    for (name, help, value) in [
        (
            "dms_server_cluster_members",
            "Servers that share the queues and beat, as this one sees them",
            counters.members,
        ),
        ("dms_server_cluster_shards", "Shards that this server serves", counters.shards),
        (
            "dms_server_cluster_unowned_shards",
            "Shards that no living server owns, as this one sees them",
            counters.unowned_shards,
        ),
        (
            "dms_server_cluster_synchronous_standby",
            "Whether PostgreSQL waits for a synchronous standby before it answers a commit (1 or 0)",
            u64::from(counters.is_replicated),
        ),
    ] {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    let help = "Beats that PostgreSQL did not answer in time";
    counter(encoder, "dms_server_cluster_missed_beats", help, counters.missed_beats)?;
    let help = "Commits that were repeated because it was not known whether they took effect";
    counter(encoder, "dms_server_cluster_unsure_commits", help, counters.unsure_commits)?;
    let help = "Shards that this server took from a server that had died";
    counter(encoder, "dms_server_cluster_takeovers", help, counters.takeovers)
}

fn by_reason(encoder: &mut DescriptorEncoder<'_>, counts: &ReasonCounts) -> fmt::Result {
    let (name, help) = ("dms_server_dead_letters_by_reason", "Messages that became dead letters, by reason");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in counts.iter() {
        ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, durations: &Histogram) -> fmt::Result {
    let help = "Time that the disk took to make a commit durable";
    let (name, unit) = ("dms_server_fsync_duration", Unit::Seconds);
    let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
    let ranges: Vec<_> = durations.ranges().collect();
    metric.encode_histogram::<NoLabelSet>(durations.sum().as_secs_f64(), durations.count(), &ranges, None)
}
