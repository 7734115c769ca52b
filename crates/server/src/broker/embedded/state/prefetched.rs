//! [`Prefetched`]: messages that were read ahead for a cursor. Pure.

use std::{collections::VecDeque, sync::Arc};

use crate::store::{ReadLimit, StoredMessage};

/// Messages in the order of the stream, without gaps except for damaged ones.
#[derive(Debug, Default)]
pub(crate) struct Prefetched {
    messages: VecDeque<Arc<StoredMessage>>,
    /// The sum of [`StoredMessage::memory_bytes`].
    bytes: usize,
}

impl Prefetched {
    /// The message with this sequence number.
    pub(crate) fn get(&self, seq: u64) -> Option<&Arc<StoredMessage>> {
        let first = self.messages.front()?.seq;
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        match self.messages.get(guess).filter(|message| message.seq == seq) {
            Some(message) => Some(message),
            // Damaged messages before it are missing.
            None => {
                let at = self.messages.binary_search_by_key(&seq, |message| message.seq).ok()?;
                self.messages.get(at)
            }
        }
    }

    /// The sequence number of the last message.
    pub(crate) fn last(&self) -> Option<u64> {
        self.messages.back().map(|message| message.seq)
    }

    /// Whether there are fewer messages and bytes than these.
    pub(crate) fn is_below(&self, limit: ReadLimit) -> bool {
        self.messages.len() < limit.messages && self.bytes < limit.bytes
    }

    /// Adds the next message.
    pub(crate) fn push(&mut self, message: Arc<StoredMessage>) {
        self.bytes += message.memory_bytes();
        self.messages.push_back(message);
    }

    /// Removes the messages before `head`.
    pub(crate) fn advance_to(&mut self, head: u64) {
        while self.messages.front().is_some_and(|message| message.seq < head) {
            let passed = self.messages.pop_front();
            self.bytes -= passed.map_or(0, |message| message.memory_bytes());
        }
    }

    /// Removes all messages.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(seq: u64, size: usize) -> Arc<StoredMessage> {
        Arc::new(StoredMessage { seq, json: vec![b' '; size].into(), body_bytes: size, ..StoredMessage::default() })
    }

    #[test]
    fn messages_are_found_around_gaps() {
        let mut prefetched = Prefetched::default();
        assert_eq!((prefetched.get(0), prefetched.last()), (None, None));
        [3, 4, 7, 8].into_iter().for_each(|seq| prefetched.push(message(seq, 1)));
        let found: Vec<_> = (0..11).filter(|seq| prefetched.get(*seq).is_some_and(|found| found.seq == *seq)).collect();
        assert_eq!((found, prefetched.last()), (vec![3, 4, 7, 8], Some(8)));
        prefetched.advance_to(6);
        let found: Vec<_> = (0..11).filter(|seq| prefetched.get(*seq).is_some()).collect();
        assert_eq!(found, [7, 8]);
    }

    #[test]
    fn a_few_large_messages_are_as_many_as_many_small_ones() {
        let limit = ReadLimit { messages: 3, bytes: 100_000 };
        let mut prefetched = Prefetched::default();
        prefetched.push(message(0, 1));
        prefetched.push(message(1, 1));
        assert!(prefetched.is_below(limit));
        prefetched.push(message(2, 1));
        assert!(!prefetched.is_below(limit), "three messages");
        prefetched.advance_to(2);
        assert!(prefetched.is_below(limit));
        prefetched.push(message(3, 100_000));
        assert!(!prefetched.is_below(limit), "100,000 bytes");
        prefetched.advance_to(4);
        assert_eq!((prefetched.bytes, prefetched.is_below(limit)), (0, true));
    }
}
