//! Queues, groups, quotas and counters, as the broker reports them.

use std::time::Duration;

use crate::{
    broker::{ReasonCounts, RetentionPolicy},
    histogram::Histogram,
};
use dms_protocol::queue::{ConsumerGroup, ProjectId, Queue};

/// A queue's groups with their counters (API reference 5.2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct GroupList {
    /// The queue's name.
    pub queue_name: String,
    /// Whether the queue has dead letters.
    pub dead_letters: bool,
    /// The groups in the order of their creation; the dead-letter counters are always filled in.
    pub groups: Vec<ConsumerGroup>,
}

/// How much of the quotas a project uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// NORMAL and FIFO queues.
    pub queues: usize,
    /// Kafka queues.
    pub kafka_queues: usize,
}

/// The limits a broker holds a project to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Queues of one project, both kinds counted apart; 30.
    pub queues: usize,
    /// Groups of one queue; 3.
    pub groups_per_queue: usize,
    /// Resource tags of one queue; 10.
    pub tags_per_queue: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { queues: 30, groups_per_queue: 3, tags_per_queue: dms_protocol::limits::MAX_QUEUE_TAGS }
    }
}

/// A queue and its groups, for metrics and for looking in.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueOverview {
    /// The project it belongs to.
    pub project: ProjectId,
    /// The queue; the dead-letter fields are filled in.
    pub queue: Queue,
    /// How long it keeps messages.
    pub retention: Duration,
    /// Whether messages go as soon as every group has settled them.
    pub delete_when_settled: bool,
    /// What of that was set while the server ran.
    pub retention_set: RetentionPolicy,
    /// Messages that are not due yet.
    pub delayed: u64,
    /// Those of them that were due, and are damaged.
    pub damaged_delayed: u64,
    /// Its groups in the order of their creation.
    pub groups: Vec<GroupOverview>,
}

/// A group of a [`QueueOverview`].
#[derive(Clone, Debug, PartialEq)]
pub struct GroupOverview {
    /// The group with its counters.
    pub group: ConsumerGroup,
    /// Messages that are leased.
    pub in_flight: u64,
    /// Consume calls that wait.
    pub polls: u64,
    /// Messages that retention deleted before the group had consumed them, since the broker was opened.
    pub expired_unread: u64,
    /// Dead letters that retention deleted before the group had consumed them, since then.
    pub expired_dead_letters: u64,
    /// Messages that are set aside because they are damaged.
    pub damaged: u64,
    /// Dead letters that are set aside because they are damaged.
    pub damaged_dead_letters: u64,
}

/// What a broker has counted since it was opened, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerStats {
    /// Messages and dead letters that were handed out again: after a failure, a lapsed lease or a restart.
    pub redeliveries: u64,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// The same by reason.
    pub dead_letter_reasons: ReasonCounts,
    /// How long the disk took to make each commit durable; none without a disk.
    pub syncs: Histogram,
}
