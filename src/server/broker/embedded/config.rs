//! What can be chosen about an embedded broker.

use std::{collections::HashMap, time::Duration};

use crate::{
    queue::ProjectId,
    server::{broker::Quotas, clock::whole_ms, store::QueueRow},
};

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

/// The options of an [`EmbeddedBroker`](super::EmbeddedBroker).
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
    /// How long dead letters are kept, from becoming one; 72 hours.
    pub dead_letter_retention: Duration,
    /// Consume calls of one group that may wait at the same time; 1,000.
    pub max_polls_per_group: usize,
    /// How many bytes of messages may be out in batches that are not acknowledged, of all groups together; 256 MiB. They are
    /// kept in memory until they are settled, so past it consume calls are refused where there is something to consume.
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
            dead_letter_retention: three_days,
            max_polls_per_group: 1_000,
            max_leased_bytes: 256 << 20,
        }
    }
}

impl EmbeddedConfig {
    /// The limits of one project.
    pub(super) fn quotas_of(&self, project: &ProjectId) -> Quotas {
        self.project_quotas.get(project).copied().unwrap_or(self.quotas)
    }

    /// How long a queue keeps messages; Kafka queues say it themselves (API reference 5.1.1, `retention_hours`).
    pub(super) fn retention_of(&self, queue: &QueueRow) -> Duration {
        queue.retention_hours.map_or(self.retention, |hours| Duration::from_secs(u64::from(hours) * 3600))
    }

    /// The same in milliseconds.
    pub(super) fn retention_ms(&self, queue: &QueueRow) -> i64 {
        whole_ms(self.retention_of(queue))
    }
}
