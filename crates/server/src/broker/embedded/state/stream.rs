//! [`Stream`]: the messages of a queue, or the dead letters of a group. The newest ones are in memory, so that consumers that keep
//! up need no read.

use std::{collections::VecDeque, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::embedded::config::EffectiveRetention,
    log_limit::Warnings,
    store::{CursorId, StoredMessage, StreamSnapshot},
};

/// The maximum bytes of its newest messages that a stream keeps in memory.
const MAX_TAIL_BYTES: usize = 2 * 1024 * 1024;

/// A bound for the entry times of messages that were written while the wall clock was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryTimeBound {
    /// Messages below this one.
    pub(crate) below: u64,
    /// They entered no later than this, in Unix milliseconds.
    pub(crate) entered_ms: i64,
}

/// The messages `low..next` of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The first message.
    pub(crate) low: u64,
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// No later than when the first message entered. `None` for an empty stream.
    pub(crate) oldest: Option<i64>,
    /// When the newest message entered. The next one enters no earlier, whatever the wall clock does.
    pub(crate) newest: i64,
    /// How long the stream keeps messages.
    pub(crate) retention: EffectiveRetention,
    /// Messages that entered in the future, when the store was opened, count as having entered then.
    pub(crate) entry_time_bound: Option<EntryTimeBound>,
    /// Retention does not look at the stream before this time.
    pub(crate) next_expiry_check: Option<Instant>,
    /// When to check whether every cursor has settled the first messages. `None` if no cursor has settled any since the last check.
    pub(crate) next_settled_check: Option<Instant>,
    /// Limits the log lines about new dead letters.
    pub(crate) dead_letter_warnings: Warnings,
    /// The cursors on this stream.
    pub(crate) cursors: Vec<CursorId>,
    /// The newest messages, up to `next`.
    tail: VecDeque<Arc<StoredMessage>>,
    /// The memory that the tail takes.
    tail_bytes: usize,
}

impl Stream {
    /// Restores a stream from a snapshot.
    pub(crate) fn new(mark: StreamSnapshot, retention: EffectiveRetention) -> Self {
        let StreamSnapshot { low, next, oldest, newest } = mark;
        Self {
            low,
            next,
            oldest,
            newest,
            retention,
            entry_time_bound: None,
            next_expiry_check: None,
            next_settled_check: None,
            dead_letter_warnings: Warnings::default(),
            cursors: Vec::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Bounds the entry times of messages that entered later than `now_ms`.
    pub(crate) fn bound_entry_times(&mut self, now_ms: i64) {
        if self.newest > now_ms {
            self.entry_time_bound = Some(EntryTimeBound { below: self.next, entered_ms: now_ms });
            self.newest = now_ms;
            self.oldest = self.oldest.map(|oldest| oldest.min(now_ms));
        }
    }

    /// A new stream.
    pub(crate) fn empty(retention: EffectiveRetention) -> Self {
        Self::new(StreamSnapshot { low: 1, next: 1, oldest: None, newest: 0 }, retention)
    }

    /// The number of messages.
    pub(crate) fn len(&self) -> u64 {
        self.next - self.low
    }

    /// The number of messages that ever entered.
    pub(crate) fn entered(&self) -> u64 {
        self.next - 1
    }

    /// When a message entered, corrected for a wall clock that was wrong then.
    pub(crate) fn bounded(&self, seq: u64, entered_ms: i64) -> i64 {
        match self.entry_time_bound {
            Some(bound) if seq < bound.below => entered_ms.min(bound.entered_ms),
            _ => entered_ms,
        }
    }

    /// Adds the next message.
    pub(crate) fn push(&mut self, message: Arc<StoredMessage>) {
        debug_assert_eq!(message.seq, self.next, "streams have no gaps");
        self.next = message.seq + 1;
        self.newest = message.entered_ms;
        self.oldest.get_or_insert(message.entered_ms);
        self.tail_bytes += message.memory_bytes();
        self.tail.push_back(message);
        // A group that is further behind reads from the store.
        while self.tail_bytes > MAX_TAIL_BYTES {
            self.drop_oldest_of_tail();
        }
    }

    /// A message, if it is in memory.
    pub(crate) fn cached(&self, seq: u64) -> Option<&Arc<StoredMessage>> {
        let first = self.tail.front()?.seq;
        self.tail.get(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    /// The bytes of messages in memory.
    #[cfg(test)]
    pub(crate) fn cached_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// When the retention of the first message may be over, in Unix milliseconds.
    pub(crate) fn expires_ms(&self) -> Option<i64> {
        self.oldest.map(|oldest| oldest.saturating_add(self.retention.retention_ms))
    }

    /// Drops messages from memory that every cursor has passed.
    pub(crate) fn forget_below(&mut self, seq: u64) {
        while self.tail.front().is_some_and(|message| message.seq < seq) {
            self.drop_oldest_of_tail();
        }
    }

    /// Applies the deletion of the messages below `low`.
    pub(crate) fn expire(&mut self, low: u64, oldest: Option<i64>) {
        self.low = self.low.max(low);
        self.oldest = if self.low == self.next { None } else { oldest.or(Some(self.newest)) };
        self.entry_time_bound = self.entry_time_bound.filter(|bound| self.low < bound.below);
        if let (Some(bound), Some(oldest)) = (self.entry_time_bound, &mut self.oldest) {
            *oldest = bound.entered_ms.min(*oldest);
        }
        self.forget_below(low);
    }

    fn drop_oldest_of_tail(&mut self) {
        if let Some(message) = self.tail.pop_front() {
            self.tail_bytes -= message.memory_bytes();
        }
    }
}
