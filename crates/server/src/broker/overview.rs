//! Queues, groups, quotas and counters, as the broker reports them.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    broker::{BrokerError, ReasonCounts, RetentionPolicy},
    histogram::Histogram,
};
use dms_protocol::queue::{ConsumerGroup, ProjectId, Queue, QueueId};

/// A queue's groups with their counters (API reference 5.2.2).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupList {
    /// The queue's name.
    pub queue_name: String,
    /// Whether the queue has dead letters.
    pub dead_letters: bool,
    /// The groups in the order of their creation. The dead-letter counters are always set.
    pub groups: Vec<ConsumerGroup>,
}

/// How much of the quotas a project uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// NORMAL and FIFO queues.
    pub queues: usize,
    /// Kafka queues.
    pub kafka_queues: usize,
}

/// The limits of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Queues of one project; Kafka queues are counted separately. Default: 30.
    pub queues: usize,
    /// Groups of one queue. Default: 3.
    pub groups_per_queue: usize,
    /// Resource tags of one queue. Default: 10.
    pub tags_per_queue: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { queues: 30, groups_per_queue: 3, tags_per_queue: dms_protocol::limits::MAX_QUEUE_TAGS }
    }
}

impl Quotas {
    /// Sets the number of queues of one project; Kafka queues are counted separately. Default: 30.
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = queues;
        self
    }

    /// Sets the number of groups of one queue. Default: 3.
    pub fn groups_per_queue(mut self, groups: usize) -> Self {
        self.groups_per_queue = groups;
        self
    }

    /// Sets the number of resource tags of one queue. Default: 10.
    pub fn tags_per_queue(mut self, tags: usize) -> Self {
        self.tags_per_queue = tags;
        self
    }
}

/// A queue and its groups, for metrics and the admin address.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueOverview {
    /// The project.
    pub project: ProjectId,
    /// The queue. The dead-letter fields are set.
    pub queue: Queue,
    /// How long it keeps messages.
    pub retention: Duration,
    /// Whether messages are deleted as soon as every group has settled them.
    pub delete_when_settled: bool,
    /// The part of it that was set while the server ran.
    pub retention_set: RetentionPolicy,
    /// The number of messages that ever entered it. Delayed ones enter when their delay ends.
    pub entered: u64,
    /// Messages per second that enter it, over the last 10 to 15 seconds.
    pub entered_per_second: f64,
    /// The number of delayed messages.
    pub delayed: u64,
    /// The number of damaged ones among them whose delay has ended.
    pub damaged_delayed: u64,
    /// The groups in the order of their creation.
    pub groups: Vec<GroupOverview>,
}

/// Which queues of a project an overview shows.
#[derive(Clone, Copy)]
pub struct OverviewPage<'a> {
    /// The last queue of the page before; `None` for the first page.
    pub after: Option<&'a QueueId>,
    /// The maximum number of queues.
    pub max: usize,
    /// Whether a queue of this id and name is shown.
    pub is_shown: &'a (dyn Fn(&QueueId, &str) -> bool + Send + Sync),
}

impl OverviewPage<'_> {
    /// This page of all queues.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`] if the queue that the page follows is not among them.
    pub(crate) fn of(
        &self,
        queues: Vec<QueueOverview>,
        project: &ProjectId,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        let own: Vec<_> = queues.into_iter().filter(|queue| queue.project == *project).collect();
        let first = match self.after {
            Some(after) => {
                let after = own.iter().position(|queue| queue.queue.id == *after);
                after.ok_or(BrokerError::QueueNotFound)? + 1
            }
            None => 0,
        };
        let shown = own.into_iter().skip(first).filter(|queue| (self.is_shown)(&queue.queue.id, &queue.queue.name));
        Ok(shown.take(self.max).collect())
    }
}

impl fmt::Debug for OverviewPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OverviewPage").field("after", &self.after).field("max", &self.max).finish_non_exhaustive()
    }
}

/// A group of a [`QueueOverview`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupOverview {
    /// The group with its counters.
    pub group: ConsumerGroup,
    /// Messages that are leased.
    pub in_flight: u64,
    /// Batches that are leased.
    pub leases: u64,
    /// Messages per second that it acknowledges, over the last 10 to 15 seconds.
    pub consumed_per_second: f64,
    /// The number of waiting consume calls.
    pub polls: u64,
    /// Messages that retention deleted before the group had consumed them, since the broker was opened.
    pub expired_unread: u64,
    /// Dead letters that retention deleted before the group had consumed them, since the broker was opened.
    pub expired_dead_letters: u64,
    /// Messages that are set aside because they are damaged.
    pub damaged: u64,
    /// Dead letters that are set aside because they are damaged.
    pub damaged_dead_letters: u64,
}

/// Counters since the broker was opened, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Messages and dead letters that were leased again, after a failure, the end of a lease or a restart.
    pub redeliveries: u64,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// The same by reason.
    pub dead_letter_reasons: ReasonCounts,
    /// Schedules and their ticks.
    pub schedules: ScheduleStats,
    /// How long the disk took to make each commit durable. Empty without a disk.
    pub syncs: Histogram,
}

/// The schedules that a broker has now, and their ticks since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleStats {
    /// Schedules that send their messages.
    pub active: u64,
    /// Schedules that are paused.
    pub paused: u64,
    /// Schedules whose next message is more than a minute late, because the store could not take it.
    pub late: u64,
    /// Ticks that sent their message.
    pub sent: u64,
    /// Missed ticks that sent nothing.
    pub missed: u64,
}

impl ScheduleStats {
    #[cfg(feature = "postgres")]
    fn add(&mut self, other: Self) {
        self.active += other.active;
        self.paused += other.paused;
        self.late += other.late;
        self.sent += other.sent;
        self.missed += other.missed;
    }
}

impl BrokerStats {
    /// Adds the counters of another broker.
    #[cfg(feature = "postgres")]
    pub(crate) fn add(&mut self, other: &Self) {
        self.redeliveries += other.redeliveries;
        self.dead_letters += other.dead_letters;
        self.dead_letter_reasons.add_all(&other.dead_letter_reasons);
        self.schedules.add(other.schedules);
        self.syncs.add(&other.syncs);
    }
}
