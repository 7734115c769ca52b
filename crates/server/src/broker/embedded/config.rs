//! What can be chosen about an embedded broker.

use std::{collections::HashMap, time::Duration};

use crate::{
    broker::{Quotas, RetentionPolicy},
    clock::whole_ms,
    store::QueueRow,
};
use dms_protocol::queue::ProjectId;

/// Who is counted when an acknowledgement stops at a failure.
///
/// The API reference (5.1.1, `max_consume_count`) does not say whether messages behind a failed one, which fail by rule
/// and not by themselves, count towards dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureCounting {
    /// The failed message alone. The default: a poison message does not drag its neighbours into the dead letters.
    #[default]
    Culprit,
    /// The failed message and all behind it in its batch: the strict reading.
    Batch,
}

/// Where a new group begins to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest message the queue still has. The default.
    #[default]
    Beginning,
    /// Behind the newest message.
    End,
}

/// How long a stream keeps messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveRetention {
    /// In milliseconds, from entering.
    pub(crate) retention_ms: i64,
    /// Whether messages go as soon as every reader has settled them.
    pub(crate) when_settled: bool,
}

impl EffectiveRetention {
    /// For a time, settled or not.
    pub(crate) fn for_time(retention: Duration) -> Self {
        Self { retention_ms: whole_ms(retention), when_settled: false }
    }

    /// The time.
    pub(crate) fn retention(self) -> Duration {
        Duration::from_millis(u64::try_from(self.retention_ms).unwrap_or(0))
    }

    /// The same in minutes, rounded up.
    pub(crate) fn minutes(self) -> u64 {
        u64::try_from(self.retention().as_millis().div_ceil(60_000)).unwrap_or(u64::MAX)
    }
}

/// The options of an [`EmbeddedBroker`](crate::broker::embedded::EmbeddedBroker).
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Who is counted when an acknowledgement stops at a failure; the failed message alone.
    pub failure_counting: FailureCounting,
    /// Whether a group of a FIFO queue gets nothing while a batch of it is out; true.
    pub fifo_blocks: bool,
    /// Where new groups begin; at the beginning.
    pub new_group_starts: StartPosition,
    /// How long a new queue or group answers that it is being created; zero. The hosted service took 1 to 3 s.
    pub create_delay: Duration,
    /// The limits of a project.
    pub quotas: Quotas,
    /// The limits of projects that have their own.
    pub project_quotas: HashMap<ProjectId, Quotas>,
    /// How long NORMAL and FIFO queues keep messages, from sending or from the end of their delay, to about a second;
    /// 72 hours.
    pub retention: Duration,
    /// What the configuration says of single queues, by project and name. It wins over what was set while the server ran.
    pub queue_retention: HashMap<(ProjectId, String), RetentionPolicy>,
    /// How long dead letters are kept, from becoming one; 72 hours.
    pub dead_letter_retention: Duration,
    /// Consume calls of one group that may wait at the same time; 1,000.
    pub max_polls_per_group: usize,
    /// How many bytes of messages may be out in batches that are not acknowledged, of all groups together; 256 MiB. They are
    /// kept in memory until they are settled, so past it consume calls are refused where there is something to consume. No group
    /// may hold more than twice of what is free, no project more than four times: something is left for those who come later.
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
    /// The limits of one project.
    pub(crate) fn quotas_of(&self, project: &ProjectId) -> Quotas {
        self.project_quotas.get(project).copied().unwrap_or(self.quotas)
    }

    /// How long a queue keeps messages: as the configuration says of it, as was set while the server ran, as a Kafka queue
    /// says itself (API reference 5.1.1, `retention_hours`), or as the server says of all.
    pub(crate) fn retention_of(&self, queue: &QueueRow, set: RetentionPolicy) -> EffectiveRetention {
        let configured = self.configured(queue);
        let own = queue.retention_hours.map(|hours| Duration::from_secs(u64::from(hours) * 3600));
        let retention = configured.retention.or(set.retention).or(own).unwrap_or(self.retention);
        let when_settled = configured.delete_when_settled.or(set.delete_when_settled).unwrap_or(false);
        EffectiveRetention { retention_ms: whole_ms(retention), when_settled }
    }

    /// What the configuration says of a queue.
    pub(crate) fn configured(&self, queue: &QueueRow) -> RetentionPolicy {
        if self.queue_retention.is_empty() {
            return RetentionPolicy::default();
        }
        self.queue_retention.get(&(queue.project.clone(), queue.name.clone())).copied().unwrap_or_default()
    }
}
