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

use crate::broker::{Broker, Histogram, QueueOverview, ReasonCounts};

/// The queues of the scrape in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenQueues(Arc<Mutex<Arc<[QueueOverview]>>>);

impl SeenQueues {
    /// Replaces the queues that the next encoding of the registry shows.
    pub(crate) fn set(&self, queues: Arc<[QueueOverview]>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    fn get(&self) -> Arc<[QueueOverview]> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Asks the broker at each scrape. The overview of the queues comes from the scrape itself, because it is expensive.
#[derive(Debug)]
struct BrokerCollector {
    broker: Arc<dyn Broker>,
    queues: SeenQueues,
}

/// Registers the statistics of a broker under their public names.
pub(crate) fn register(registry: &mut Registry, broker: &Arc<dyn Broker>, queues: SeenQueues) {
    registry.register_collector(Box::new(BrokerCollector { broker: Arc::clone(broker), queues }));
}

impl Collector for BrokerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.broker.stats();
        let help = "Messages and dead letters handed out again";
        counter(&mut encoder, "dms_server_redeliveries", help, stats.redeliveries)?;
        let help = "Messages that became dead letters";
        counter(&mut encoder, "dms_server_dead_letters", help, stats.dead_letters)?;
        by_reason(&mut encoder, &stats.dead_letter_reasons)?;
        expired_unread(&mut encoder, &self.queues.get())?;
        durations(&mut encoder, &stats.syncs)?;
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

fn by_reason(encoder: &mut DescriptorEncoder<'_>, counts: &ReasonCounts) -> fmt::Result {
    let (name, help) = ("dms_server_dead_letters_by_reason", "Messages that became dead letters, by reason");
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (reason, count) in counts.iter() {
        ConstCounter::new(count).encode(metric.encode_family(&[("reason", reason)])?)?;
    }
    Ok(())
}

fn expired_unread(encoder: &mut DescriptorEncoder<'_>, queues: &[QueueOverview]) -> fmt::Result {
    let help = "Messages and dead letters that retention deleted before their group had consumed them";
    let mut metric =
        encoder.encode_descriptor("dms_server_expired_unread_messages", help, None, MetricType::Counter)?;
    for (queue, group) in queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group))) {
        let of = [("messages", group.expired_unread), ("deadletters", group.expired_dead_letters)];
        for (stream, count) in of {
            let labels = [
                ("project", queue.project.as_str()),
                ("queue", queue.queue.name.as_str()),
                ("group", group.group.name.as_str()),
                ("stream", stream),
            ];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
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
