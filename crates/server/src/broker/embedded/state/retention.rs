//! Which messages of a stream are deleted because every group has settled them.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{
        RetentionPolicy,
        embedded::{
            config::{EffectiveRetention, EmbeddedConfig},
            state::{BrokerState, QueueState},
        },
    },
    store::StreamId,
};
use dms_protocol::queue::QueueId;

/// Retention looks at a stream no more often than this, because under steady traffic messages expire all the time.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of settled messages that one step deletes.
const MAX_SETTLED: u64 = 10_000;

impl BrokerState {
    /// Sets how long a queue keeps messages.
    pub(crate) fn set_retention(&mut self, queue: &QueueId, policy: RetentionPolicy, config: &EmbeddedConfig) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        queue.retention = policy;
        let (number, retention) = (queue.row.stream(), config.retention_of(&queue.row, policy));
        self.keep_for(number, retention);
    }

    /// Takes other settings, except those that the state was built on.
    pub(crate) fn reconfigure(&mut self, config: EmbeddedConfig) {
        self.config = Arc::new(config.for_running(&self.config));
        let queues: Vec<_> = self.queues.values().map(|queue| (queue.row.stream(), self.retention_of(queue))).collect();
        for (number, retention) in queues {
            if self.streams.get(&number).is_some_and(|stream| stream.retention != retention) {
                self.keep_for(number, retention);
            }
        }
    }

    /// How long a queue keeps messages now.
    pub(crate) fn retention_of(&self, queue: &QueueState) -> EffectiveRetention {
        self.config.retention_of(&queue.row, queue.retention)
    }

    fn keep_for(&mut self, number: StreamId, retention: EffectiveRetention) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.retention = retention;
            // A shorter retention takes effect at once.
            stream.next_expiry_check = None;
        }
        self.timer_is_stale = true;
        self.schedule_settled_check(number);
    }

    /// Makes the timer check soon whether every cursor has settled the first messages of this stream. Returns whether the timer has
    /// to be woken.
    pub(crate) fn schedule_settled_check(&mut self, stream: StreamId) -> bool {
        let stream = self.streams.get_mut(&stream).filter(|stream| stream.retention.when_settled);
        let Some(stream) = stream.filter(|stream| stream.next_settled_check.is_none()) else { return false };
        let at = Instant::now() + EXPIRY_INTERVAL;
        stream.next_settled_check = Some(at);
        // A look visits every stream, so it is not asked for without need.
        let is_early = self.timer_target.is_some_and(|target| at < target);
        self.timer_is_stale |= is_early;
        is_early
    }

    /// The streams to check now.
    pub(crate) fn take_due_settled_checks(&mut self, now: Instant) -> Vec<StreamId> {
        let due =
            self.streams.iter_mut().filter(|(_, stream)| stream.next_settled_check.is_some_and(|look| look <= now));
        due.map(|(number, stream)| {
            stream.next_settled_check = None;
            *number
        })
        .collect()
    }

    /// The bounded prefix of a stream that every cursor has settled: where the stream begins without it, and a lower bound of the
    /// entry time there. `None` if there is none. A stream without cursors has none, because its messages wait for the first group.
    pub(crate) fn settled_prefix(&self, number: StreamId) -> Option<(u64, Option<i64>)> {
        let stream = self.streams.get(&number).filter(|stream| stream.retention.when_settled)?;
        let cursors = stream.cursors.iter().filter_map(|cursor| self.cursors.get(cursor));
        let settled = cursors.map(|cursor| cursor.settled_below()).min()?;
        let low = settled.min(stream.low + MAX_SETTLED);
        (low > stream.low).then(|| (low, stream.oldest.filter(|_| low < stream.next)))
    }
}
