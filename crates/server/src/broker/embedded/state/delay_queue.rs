//! The delay queue of a queue: how many messages wait in it, and when the first one is due. The messages are in the store only.

use crate::{
    broker::embedded::state::set_aside::SetAside,
    store::{DelayQueueSnapshot, StreamId},
};

/// The delayed messages of a queue.
#[derive(Debug)]
pub(crate) struct DelayQueue {
    /// The stream that messages enter when their delay ends.
    pub(crate) stream: StreamId,
    /// Messages below this one were purged.
    pub(crate) low: u64,
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// The number of messages.
    pub(crate) count: u64,
    /// No later than the end of the first delay. `None` while the queue is empty or the timer is reading it.
    pub(crate) next_due: Option<i64>,
    /// Damaged messages whose delay has ended. They stay here and do not block others.
    pub(crate) set_aside: SetAside,
}

impl DelayQueue {
    /// Restores a delay queue from a snapshot.
    pub(crate) fn new(stream: StreamId, DelayQueueSnapshot { next, count, next_due }: DelayQueueSnapshot) -> Self {
        Self { stream, low: 1, next, count, next_due, set_aside: SetAside::default() }
    }

    /// A new delay queue.
    pub(crate) fn empty(stream: StreamId) -> Self {
        Self { stream, low: 1, next: 1, count: 0, next_due: None, set_aside: SetAside::default() }
    }

    /// Counts a message whose delay ends at `due`.
    pub(crate) fn push(&mut self, seq: u64, due: i64) {
        self.next = seq + 1;
        self.count += 1;
        self.look_at(due);
    }

    /// Counts out a message: its delay has ended, or it was given up.
    pub(crate) fn remove(&mut self, seq: u64) {
        self.set_aside.forget(seq);
        self.count = self.count.saturating_sub(1);
    }

    /// Purges all messages.
    pub(crate) fn clear(&mut self) {
        *self = Self { low: self.next, next: self.next, ..Self::empty(self.stream) };
    }

    /// Makes the timer look at the queue at `due`, if not earlier.
    pub(crate) fn look_at(&mut self, due: i64) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }
}
