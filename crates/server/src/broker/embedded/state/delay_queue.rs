//! The delay queue of a queue: how many messages wait in it, and when the first one is due. The messages are in the store only.

use crate::{
    broker::embedded::state::set_aside::SetAside,
    store::{DelayQueueSnapshot, StreamId},
};

/// Messages of a queue that are not due; they are in the store alone.
#[derive(Debug)]
pub(crate) struct DelayQueue {
    /// Where they go when they are due.
    pub(crate) stream: StreamId,
    /// Messages before this place were purged.
    pub(crate) low: u64,
    /// The place of the next message.
    pub(crate) next: u64,
    /// How many wait.
    pub(crate) count: u64,
    /// No later than when the first is due; `None` while nothing waits or the timer is looking.
    pub(crate) next_due: Option<i64>,
    /// Damaged ones that were due: they stay, and hold nothing up.
    pub(crate) set_aside: SetAside,
}

impl DelayQueue {
    /// A lot as a store has it.
    pub(crate) fn new(stream: StreamId, DelayQueueSnapshot { next, count, next_due }: DelayQueueSnapshot) -> Self {
        Self { stream, low: 1, next, count, next_due, set_aside: SetAside::default() }
    }

    /// A lot without a history.
    pub(crate) fn empty(stream: StreamId) -> Self {
        Self { stream, low: 1, next: 1, count: 0, next_due: None, set_aside: SetAside::default() }
    }

    /// A message comes to wait until `due`.
    pub(crate) fn push(&mut self, seq: u64, due: i64) {
        self.next = seq + 1;
        self.count += 1;
        self.look_at(due);
    }

    /// A message has left: it was due, or is given up.
    pub(crate) fn remove(&mut self, seq: u64) {
        self.set_aside.forget(seq);
        self.count = self.count.saturating_sub(1);
    }

    /// All that waits is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self { low: self.next, next: self.next, ..Self::empty(self.stream) };
    }

    /// Something may be due at `due`.
    pub(crate) fn look_at(&mut self, due: i64) {
        self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
    }
}
