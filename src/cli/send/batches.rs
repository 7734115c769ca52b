//! Messages into requests: at most ten, at most 524 288 bytes of bodies (API reference 5.3.1).

use crate::{
    limits::{MAX_BYTES, MAX_MESSAGES},
    message::Message,
};

/// Numbered messages that wait for their request to be full.
#[derive(Debug, Default)]
pub(super) struct Batches {
    waiting: Vec<(u64, Message)>,
    bytes: usize,
}

impl Batches {
    /// Adds a message; gives the request that is full now, or that it did not fit into.
    pub(super) fn add(&mut self, number: u64, message: Message) -> Option<Vec<(u64, Message)>> {
        let bytes = message.body.len();
        let full = if self.bytes + bytes > MAX_BYTES { self.take() } else { None };
        self.bytes += bytes;
        self.waiting.push((number, message));
        full.or_else(|| if self.waiting.len() == MAX_MESSAGES { self.take() } else { None })
    }

    /// The messages that wait, if any.
    pub(super) fn take(&mut self) -> Option<Vec<(u64, Message)>> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.waiting);
        if batch.is_empty() { None } else { Some(batch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Message {
        // Two bytes are the quotes.
        Message::text(&"x".repeat(bytes - 2))
    }

    #[test]
    fn a_request_has_ten_messages_at_most() {
        let mut batches = Batches::default();
        let full: Vec<_> = (0..25).filter_map(|n| batches.add(n, text(10))).map(|batch| batch.len()).collect();
        assert_eq!(full, [10, 10]);
        assert_eq!(batches.take().map(|batch| batch.len()), Some(5));
        assert_eq!(batches.take(), None);
    }

    #[test]
    fn a_request_has_524288_bytes_at_most() {
        let mut batches = Batches::default();
        assert_eq!(batches.add(1, text(MAX_BYTES - 5)), None);
        assert_eq!(batches.add(2, text(5)), None, "exactly full is allowed");
        let full = batches.add(3, text(3));
        assert_eq!(full.map(|batch| batch.len()), Some(2));
        assert_eq!(batches.take().map(|batch| batch[0].0), Some(3));
    }
}
