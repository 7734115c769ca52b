//! The limits and the result of a read of a store.

use std::sync::Arc;

use crate::store::record::StoredMessage;

/// Bounds of one read. The first message is returned whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimit {
    /// The maximum number of messages.
    pub(crate) messages: usize,
    /// The maximum number of bytes, as [`StoredMessage::memory_bytes`] counts them.
    pub(crate) bytes: usize,
}

impl ReadLimit {
    /// Counts a read against these bounds. A damaged stretch yields no message and counts as one, so that every search ends.
    pub(crate) fn subtract(&mut self, messages: &[Arc<StoredMessage>]) {
        let bytes = messages.iter().map(|message| message.memory_bytes()).sum();
        self.messages = self.messages.saturating_sub(messages.len().max(1));
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A damaged message. It stays in the store, and no consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Its sequence number in its stream or delay queue.
    pub(crate) seq: u64,
    /// As [`StoredMessage::entered_ms`], if it is known; in a delay queue it always is.
    pub(crate) entered_ms: Option<i64>,
    /// The file that it is in.
    pub(crate) file: Arc<str>,
    /// Where it begins in the file, or where its run begins.
    pub(crate) offset: u64,
    /// The damage.
    pub(crate) reason: Arc<str>,
    /// Whether the disk returned no bytes at all: a later read may succeed.
    pub(crate) is_unreadable: bool,
}

/// The result of a read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ReadBatch {
    /// Messages in order.
    pub(crate) messages: Vec<Arc<StoredMessage>>,
    /// Damaged messages between them.
    pub(crate) damaged: Vec<Damaged>,
    /// The read is complete below this sequence number: a message that is not in the batch no longer exists. `u64::MAX` if the read
    /// reached the end.
    pub(crate) until: u64,
}

impl ReadBatch {
    /// Where to go on after this read, which began at `place`. It is always later, also where a damaged stretch yielded no message.
    pub(crate) fn next(&self, place: u64) -> u64 {
        let read = self.messages.last().map_or(self.until, |last| last.seq + 1);
        read.max(place + 1)
    }
}

/// The first `count` entry times, up to and including the first one after `until_ms`.
pub(crate) fn up_to_time(times: impl Iterator<Item = (u64, i64)>, count: usize, until_ms: i64) -> Vec<(u64, i64)> {
    let mut found = Vec::new();
    for (seq, entered_ms) in times.take(count) {
        found.push((seq, entered_ms));
        if entered_ms > until_ms {
            break;
        }
    }
    found
}
