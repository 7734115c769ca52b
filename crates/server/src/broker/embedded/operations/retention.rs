//! How long queues keep messages: set while the broker runs, and messages deleted once every group has settled them.

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError, RetentionPolicy,
        embedded::{
            background::timer::EXPIRY_INTERVAL,
            command::{AdminCommand, Command},
            config::{EffectiveRetention, EmbeddedConfig},
            core::Core,
            state::{QueueState, State},
        },
    },
    store::StreamId,
};
use dms_protocol::queue::{ProjectId, QueueId};

/// The most settled messages of one piece of work.
const MAX_SETTLED: u64 = 10_000;

impl Core {
    /// Sets how long a queue keeps messages.
    pub(crate) async fn set_retention(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        policy: RetentionPolicy,
    ) -> Result<(), BrokerError> {
        {
            let state = self.open()?;
            let queue = state.queue(project, queue, &self.at())?;
            let (configured, set) = (self.config.configured(&queue.row), queue.retention);
            if configured.retention.is_some() && policy.retention != set.retention {
                return Err(BrokerError::Configured("retention"));
            }
            if configured.delete_when_settled.is_some() && policy.delete_when_settled != set.delete_when_settled {
                return Err(BrokerError::Configured("delete_when_settled"));
            }
        }
        self.change(AdminCommand::SetRetention(queue.clone(), policy)).await
    }

    /// How long a queue keeps messages now.
    pub(crate) fn retention(&self, queue: &QueueState) -> EffectiveRetention {
        self.config.retention_of(&queue.row, queue.retention)
    }
}

/// Deletes the messages at the front of a stream that every reader has settled, one bounded piece.
pub(crate) async fn drop_settled(core: &Core, stream: StreamId) -> Result<(), BrokerError> {
    core.submit(Command::DropSettled(stream)).outcome().await?;
    let mut state = core.lock();
    if state.settled_prefix(stream).is_some()
        && let Some(stream) = state.streams.get_mut(&stream)
    {
        stream.next_settled_check = Some(Instant::now());
    }
    Ok(())
}

impl State {
    /// How long a queue keeps messages was set.
    pub(crate) fn set_retention(&mut self, queue: &QueueId, policy: RetentionPolicy, config: &EmbeddedConfig) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        queue.retention = policy;
        let (number, retention) = (queue.row.stream(), config.retention_of(&queue.row, policy));
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.retention = retention;
            stream.next_expiry_check = None;
        }
        self.timer_is_stale = true;
        self.schedule_settled_check(number);
    }

    /// A reader of this stream has settled messages: the timer is to look soon whether it was the last one to. Whether the timer has
    /// to be told.
    pub(crate) fn schedule_settled_check(&mut self, stream: StreamId) -> bool {
        let stream = self.streams.get_mut(&stream).filter(|stream| stream.retention.when_settled);
        let Some(stream) = stream.filter(|stream| stream.next_settled_check.is_none()) else { return false };
        stream.next_settled_check = Some(Instant::now() + EXPIRY_INTERVAL);
        self.timer_is_stale = true;
        true
    }

    /// The streams to look at now.
    pub(crate) fn take_due_settled_checks(&mut self, now: Instant) -> Vec<StreamId> {
        let due =
            self.streams.iter_mut().filter(|(_, stream)| stream.next_settled_check.is_some_and(|look| look <= now));
        due.map(|(number, stream)| {
            stream.next_settled_check = None;
            *number
        })
        .collect()
    }

    /// Where a stream begins, and no later than when its first message entered, once a piece of what every reader has settled is
    /// gone; `None` where nothing is to go. Without readers nothing is: the messages wait for the first one.
    pub(crate) fn settled_prefix(&self, number: StreamId) -> Option<(u64, Option<i64>)> {
        let stream = self.streams.get(&number).filter(|stream| stream.retention.when_settled)?;
        let cursors = stream.cursors.iter().filter_map(|cursor| self.cursors.get(cursor));
        let settled = cursors.map(|cursor| cursor.settled_below()).min()?;
        let low = settled.min(stream.low + MAX_SETTLED);
        (low > stream.low).then(|| (low, stream.oldest.filter(|_| low < stream.next)))
    }
}
