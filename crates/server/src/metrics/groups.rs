//! The metrics of queues and groups, from the overview that a scrape has taken.
//!
//! Each group has a dozen series, so the number of groups with their own series is limited. The oldest groups have them. All
//! others share the series of the group `(other)` of the queue `(other)`, a name that no queue can have.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::broker::{GroupOverview, QueueOverview};
use dms_protocol::queue::GroupId;

/// The name of the queue and the group that stand for all without series of their own.
const OTHER: &str = "(other)";

/// The queues at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenQueues {
    /// All queues with their groups, oldest first.
    pub(crate) queues: Arc<[QueueOverview]>,
    /// The age of the first message that a group has not settled.
    pub(crate) oldest: Arc<HashMap<GroupId, Duration>>,
    /// The number of groups that have series of their own.
    pub(crate) max_groups: usize,
    /// The schedules of the configuration whose queue is missing.
    pub(crate) waiting_schedules: usize,
}

/// The figures of one group, or the sums of several.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    ready: u64,
    in_flight: u64,
    delayed: u64,
    dead: u64,
    damaged: u64,
    oldest: Duration,
    waiting_polls: u64,
    leases: u64,
    consumed: u64,
    dead_lettered: u64,
    expired: u64,
    expired_dead: u64,
}

struct Series<'a> {
    labels: [(&'static str, &'a str); 3],
    figures: Figures,
}

impl Figures {
    fn of(queue: &QueueOverview, group: &GroupOverview, oldest: Option<&Duration>) -> Self {
        Self {
            ready: group.group.available_messages,
            in_flight: group.in_flight,
            delayed: queue.delayed,
            dead: group.group.available_dead_letters.unwrap_or(0),
            // Delayed messages belong to the queue. Every group will miss a damaged one.
            damaged: group.damaged + group.damaged_dead_letters + queue.damaged_delayed,
            oldest: oldest.copied().unwrap_or_default(),
            waiting_polls: group.polls,
            leases: group.leases,
            consumed: group.group.consumed_messages,
            dead_lettered: group.group.produced_dead_letters.unwrap_or(0),
            expired: group.expired_unread,
            expired_dead: group.expired_dead_letters,
        }
    }

    fn add(&mut self, other: &Self) {
        self.ready += other.ready;
        self.in_flight += other.in_flight;
        self.delayed += other.delayed;
        self.dead += other.dead;
        self.damaged += other.damaged;
        self.oldest = self.oldest.max(other.oldest);
        self.waiting_polls += other.waiting_polls;
        self.leases += other.leases;
        self.consumed += other.consumed;
        self.dead_lettered += other.dead_lettered;
        self.expired += other.expired;
        self.expired_dead += other.expired_dead;
    }
}

impl SeenQueues {
    fn series(&self) -> Vec<Series<'_>> {
        let groups = self.queues.iter().flat_map(|queue| queue.groups.iter().map(move |group| (queue, group)));
        let (mut series, mut others) = (Vec::new(), None::<Figures>);
        for (queue, group) in groups {
            let figures = Figures::of(queue, group, self.oldest.get(&group.group.id));
            if series.len() < self.max_groups {
                let labels = [
                    ("project", queue.project.as_str()),
                    ("queue", queue.queue.name.as_str()),
                    ("group", group.group.name.as_str()),
                ];
                series.push(Series { labels, figures });
            } else {
                others.get_or_insert_default().add(&figures);
            }
        }
        let labels = [("project", OTHER), ("queue", OTHER), ("group", OTHER)];
        series.extend(others.map(|figures| Series { labels, figures }));
        series
    }

    /// Encodes the metrics of all groups and queues.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.series();
        type Part = fn(&Figures) -> u64;
        let states: [(&str, Part); 4] = [
            ("ready", |figures| figures.ready),
            ("in_flight", |figures| figures.in_flight),
            ("delayed", |figures| figures.delayed),
            ("dead", |figures| figures.dead),
        ];
        let help = "Messages of a group by state, as of this scrape";
        gauges(encoder, "dms_server_queue_messages", help, &series, "state", &states)?;
        let help = "Age of the oldest message that a group has not settled, in seconds";
        let mut metric =
            encoder.encode_descriptor("dms_server_oldest_unacked_age_seconds", help, None, MetricType::Gauge)?;
        for Series { labels, figures } in &series {
            ConstGauge::new(figures.oldest.as_secs_f64()).encode(metric.encode_family(labels)?)?;
        }
        let help = "Messages of a group that are set aside because they are damaged on the disk, as of this scrape";
        let mut metric = encoder.encode_descriptor("dms_server_damaged_messages", help, None, MetricType::Gauge)?;
        for Series { labels, figures } in &series {
            ConstGauge::new(signed(figures.damaged)).encode(metric.encode_family(labels)?)?;
        }
        let consumers: [(&str, Part); 2] =
            [("waiting", |figures| figures.waiting_polls), ("leasing", |figures| figures.leases)];
        let help = "Consume calls of a group that wait, and batches that its consumers have leased, as of this scrape";
        gauges(encoder, "dms_server_group_consumers", help, &series, "state", &consumers)?;
        let help = "Messages that a group has acknowledged";
        let consumed: [(&str, Part); 1] = [("messages", |figures| figures.consumed)];
        counters(encoder, "dms_server_group_consumed_messages", help, &series, &consumed)?;
        let help = "Messages of a group that became dead letters";
        let dead: [(&str, Part); 1] = [("deadletters", |figures| figures.dead_lettered)];
        counters(encoder, "dms_server_group_dead_letters", help, &series, &dead)?;
        let help = "Messages and dead letters that retention deleted before their group had consumed them";
        let expired: [(&str, Part); 2] =
            [("messages", |figures| figures.expired), ("deadletters", |figures| figures.expired_dead)];
        counters(encoder, "dms_server_expired_unread_messages", help, &series, &expired)?;
        self.encode_queues(encoder)
    }

    fn encode_queues(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Messages that entered a queue; a delayed one enters when its delay ends";
        let mut metric =
            encoder.encode_descriptor("dms_server_queue_produced_messages", help, None, MetricType::Counter)?;
        let (own, others) = self.queues.split_at(self.max_groups.min(self.queues.len()));
        for queue in own {
            let labels = [("project", queue.project.as_str()), ("queue", queue.queue.name.as_str())];
            ConstCounter::new(queue.entered).encode(metric.encode_family(&labels)?)?;
        }
        if !others.is_empty() {
            let entered: u64 = others.iter().map(|queue| queue.entered).sum();
            let labels = [("project", OTHER), ("queue", OTHER)];
            ConstCounter::new(entered).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The value of a label, and the figure that it names.
type Part = (&'static str, fn(&Figures) -> u64);

/// Gauges of each group by a label `of`.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: &[Series<'_>],
    of: &'static str,
    parts: &[Part],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for Series { labels: [project, queue, group], figures } in series {
        for (value, part) in parts {
            let labels = [*project, *queue, *group, (of, *value)];
            ConstGauge::new(signed(part(figures))).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Counters of each group; several of one name differ in the label `stream`.
fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: &[Series<'_>],
    parts: &[Part],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for Series { labels: [project, queue, group], figures } in series {
        for (stream, part) in parts {
            let counter = ConstCounter::new(part(figures));
            if parts.len() == 1 {
                counter.encode(metric.encode_family(&[*project, *queue, *group])?)?;
            } else {
                counter.encode(metric.encode_family(&[*project, *queue, *group, ("stream", *stream)])?)?;
            }
        }
    }
    Ok(())
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
