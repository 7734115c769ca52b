//! The options of the embedded broker.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{Quotas, RetentionPolicy},
    clock::whole_ms,
    store::QueueRow,
};
use dms_protocol::queue::ProjectId;

/// Which messages of a batch count as failed when an acknowledgement stops at a failure.
///
/// The API reference (5.1.1, `max_consume_count`) does not say whether the messages after a failed one, which fail by rule and not
/// by themselves, count towards dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureCounting {
    /// The failed message only. The default: one poison message does not cause its neighbours to be dead-lettered.
    #[default]
    Culprit,
    /// The failed message and all later ones of its batch: the strict reading.
    Batch,
}

/// Where a new group starts to consume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest message that the queue still has. The default.
    #[default]
    Beginning,
    /// After the newest message.
    End,
}

/// How long a stream keeps messages, after the queue's own policy and the configuration were combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveRetention {
    /// In milliseconds from the time of entry.
    pub(crate) retention_ms: i64,
    /// Whether messages are deleted as soon as every cursor has settled them.
    pub(crate) when_settled: bool,
}

impl EffectiveRetention {
    /// Keeps messages for this time, settled or not.
    pub(crate) fn for_time(retention: Duration) -> Self {
        Self { retention_ms: whole_ms(retention), when_settled: false }
    }

    /// The time.
    pub(crate) fn retention(self) -> Duration {
        Duration::from_millis(u64::try_from(self.retention_ms).unwrap_or(0))
    }

    /// Whether a message that enters now expires before `at`. `None` stands for a time that is not over.
    pub(crate) fn expires_before(self, at: Option<Instant>) -> bool {
        let expires = Instant::now().checked_add(self.retention());
        at.zip(expires).is_some_and(|(at, expires)| expires < at)
    }

    /// The time in minutes, rounded up.
    pub(crate) fn minutes(self) -> u64 {
        u64::try_from(self.retention().as_millis().div_ceil(60_000)).unwrap_or(u64::MAX)
    }
}

/// The options of an [`EmbeddedBroker`](crate::broker::embedded::EmbeddedBroker).
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use dms_server::{ServerConfig, broker::embedded::{EmbeddedConfig, StartPosition}};
///
/// let broker =
///     EmbeddedConfig::default().new_group_starts(StartPosition::End).retention(Duration::from_secs(3600));
/// let config = ServerConfig::default().broker(broker);
/// assert!(config.broker.fifo_blocks);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// Which messages count as failed when an acknowledgement stops at a failure. Default: the failed message only.
    pub failure_counting: FailureCounting,
    /// Whether a group of a FIFO queue gets nothing while a batch of it is leased. Default: true.
    pub fifo_blocks: bool,
    /// Where new groups start. Default: at the oldest message.
    pub new_group_starts: StartPosition,
    /// How long a new queue or group reports that it is being created. Default: zero. The hosted service took 1 to 3 s.
    pub create_delay: Duration,
    /// The quotas of each project. Default: 30 queues of each kind, 3 groups and 10 tags for each queue.
    pub quotas: Quotas,
    /// The quotas of single projects, in place of `quotas`.
    pub project_quotas: HashMap<ProjectId, Quotas>,
    /// How long NORMAL and FIFO queues keep messages from sending, or from the end of the delay, to about a second. Default: 72
    /// hours.
    pub retention: Duration,
    /// Policies of single queues by project and name. They take precedence over policies that are set while the server runs.
    pub queue_retention: HashMap<(ProjectId, String), RetentionPolicy>,
    /// How long dead letters are kept. Default: 72 hours.
    pub dead_letter_retention: Duration,
    /// The maximum number of waiting consume calls of one group. Default: 1,000.
    pub max_polls_per_group: usize,
    /// The maximum number of bytes of leased messages, of all groups together. Default: 256 MiB. Leased messages stay in memory
    /// until they are settled, so beyond this limit consume calls are refused while there are messages. A group may hold at most
    /// twice the free amount and a project four times, so that something is left for callers that come later.
    pub max_leased_bytes: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        let three_days = Duration::from_secs(72 * 3600);
        Self {
            failure_counting: FailureCounting::default(),
            fifo_blocks: true,
            new_group_starts: StartPosition::default(),
            create_delay: Duration::ZERO,
            quotas: Quotas::default(),
            project_quotas: HashMap::new(),
            retention: three_days,
            queue_retention: HashMap::new(),
            dead_letter_retention: three_days,
            max_polls_per_group: 1_000,
            max_leased_bytes: 256 << 20,
        }
    }
}

impl EmbeddedConfig {
    /// Sets which messages count as failed when an acknowledgement stops at a failure. Default: the failed message only.
    pub fn failure_counting(mut self, counting: FailureCounting) -> Self {
        self.failure_counting = counting;
        self
    }

    /// Sets whether a group of a FIFO queue gets nothing while a batch of it is leased. Default: true.
    pub fn fifo_blocks(mut self, on: bool) -> Self {
        self.fifo_blocks = on;
        self
    }

    /// Sets where new groups start. Default: at the oldest message.
    pub fn new_group_starts(mut self, position: StartPosition) -> Self {
        self.new_group_starts = position;
        self
    }

    /// Sets how long a new queue or group reports that it is being created. Default: zero.
    pub fn create_delay(mut self, delay: Duration) -> Self {
        self.create_delay = delay;
        self
    }

    /// Sets the quotas of each project. Default: 30 queues of each kind, 3 groups and 10 tags for each queue.
    pub fn quotas(mut self, quotas: Quotas) -> Self {
        self.quotas = quotas;
        self
    }

    /// Sets how long NORMAL and FIFO queues keep messages. Default: 72 hours.
    pub fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Sets how long dead letters are kept. Default: 72 hours.
    pub fn dead_letter_retention(mut self, retention: Duration) -> Self {
        self.dead_letter_retention = retention;
        self
    }

    /// Sets the maximum number of waiting consume calls of one group. Default: 1,000.
    pub fn max_polls_per_group(mut self, calls: usize) -> Self {
        self.max_polls_per_group = calls;
        self
    }

    /// Sets the maximum number of bytes of leased messages, of all groups together. Default: 256 MiB.
    pub fn max_leased_bytes(mut self, bytes: usize) -> Self {
        self.max_leased_bytes = bytes;
        self
    }

    /// These settings for a broker that runs with others, which keeps what it has built its state on.
    pub(crate) fn for_running(self, running: &Self) -> Self {
        Self { fifo_blocks: running.fifo_blocks, dead_letter_retention: running.dead_letter_retention, ..self }
    }

    /// The limits of one project.
    pub(crate) fn quotas_of(&self, project: &ProjectId) -> Quotas {
        self.project_quotas.get(project).copied().unwrap_or(self.quotas)
    }

    /// How long a queue keeps messages: as configured for the queue, else as set while the server ran, else as the Kafka queue was
    /// created with (API reference 5.1.1, `retention_hours`), else as configured for the server.
    pub(crate) fn retention_of(&self, queue: &QueueRow, set: RetentionPolicy) -> EffectiveRetention {
        let configured = self.configured(queue);
        let own = queue.retention_hours.map(|hours| Duration::from_secs(u64::from(hours) * 3600));
        let retention = configured.retention.or(set.retention).or(own).unwrap_or(self.retention);
        let when_settled = configured.delete_when_settled.or(set.delete_when_settled).unwrap_or(false);
        EffectiveRetention { retention_ms: whole_ms(retention), when_settled }
    }

    /// The policy that is configured for a queue.
    pub(crate) fn configured(&self, queue: &QueueRow) -> RetentionPolicy {
        if self.queue_retention.is_empty() {
            return RetentionPolicy::default();
        }
        self.queue_retention.get(&(queue.project.clone(), queue.name.clone())).copied().unwrap_or_default()
    }
}
