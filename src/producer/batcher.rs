//! [`Batcher`]: decides which messages go into which request, and when. Pure: depends on the messages and the time
//! alone.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::limits::{MAX_BYTES, MAX_MESSAGES};

/// The size of a request without its messages and their commas: `{"messages":[],"return_id":true}`.
pub(super) const ENVELOPE: usize = 33;

/// Messages that wait for a request, in order. `T` is the message.
#[derive(Debug)]
pub(super) struct Batcher<T> {
    waiting: VecDeque<Waiting<T>>,
    linger: Duration,
    /// The number of messages, from the front, that must not linger.
    hurried: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: usize,
    since: Instant,
}

/// When the next batch may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// No message waits.
    Empty,
    /// At once.
    Now,
    /// When the first message has lingered.
    At(Instant),
}

impl<T> Batcher<T> {
    pub(super) fn new(linger: Duration) -> Self {
        Self { waiting: VecDeque::new(), linger, hurried: 0 }
    }

    /// Adds a message whose exact size within a request is `bytes`.
    pub(super) fn push(&mut self, item: T, bytes: usize, now: Instant) {
        self.waiting.push_back(Waiting { item, bytes, since: now });
    }

    /// The message that has waited for the longest time.
    pub(super) fn first(&self) -> Option<&T> {
        self.waiting.front().map(|waiting| &waiting.item)
    }

    /// Sends all messages that wait now without lingering.
    pub(super) fn hurry(&mut self) {
        self.hurried = self.waiting.len();
    }

    /// When the next batch may be sent: at once if another message would not fit into it.
    pub(super) fn ready(&self, now: Instant) -> Ready {
        let Some(first) = self.waiting.front() else { return Ready::Empty };
        let due = first.since + self.linger;
        let count = self.fitting();
        if self.hurried > 0 || count == MAX_MESSAGES || count < self.waiting.len() || due <= now {
            Ready::Now
        } else {
            Ready::At(due)
        }
    }

    /// Takes the next batch, in order; empty if no message waits.
    pub(super) fn take(&mut self) -> Vec<T> {
        let count = self.fitting();
        self.hurried = self.hurried.saturating_sub(count);
        self.waiting.drain(..count).map(|waiting| waiting.item).collect()
    }

    /// Takes all messages.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.hurried = 0;
        self.waiting.drain(..).map(|waiting| waiting.item).collect()
    }

    /// The number of messages, from the front, that fit into one request. The first one always fits, because its size
    /// was checked before.
    fn fitting(&self) -> usize {
        let mut size = ENVELOPE;
        let more = self.waiting.iter().take(MAX_MESSAGES).enumerate().take_while(|(index, waiting)| {
            size = size.saturating_add(waiting.bytes).saturating_add(usize::from(*index > 0));
            *index == 0 || size <= MAX_BYTES
        });
        more.count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_millis(5);

    fn batcher(sizes: &[usize], now: Instant) -> Batcher<usize> {
        let mut batcher = Batcher::new(LINGER);
        for &size in sizes {
            batcher.push(size, size, now);
        }
        batcher
    }

    #[test]
    fn a_batch_lingers_for_more_until_it_is_full() {
        let now = Instant::now();
        assert_eq!(batcher(&[], now).ready(now), Ready::Empty);
        assert_eq!(batcher(&[1; 9], now).ready(now), Ready::At(now + LINGER));
        assert_eq!(batcher(&[1; 9], now).ready(now + LINGER), Ready::Now);
        assert_eq!(batcher(&[1; 10], now).ready(now), Ready::Now);
        assert_eq!(batcher(&[300_000; 2], now).ready(now), Ready::Now);
    }

    #[test]
    fn a_message_as_large_as_a_request_goes_alone() {
        let now = Instant::now();
        let mut batcher = batcher(&[10, MAX_BYTES, 10], now);
        assert_eq!(batcher.take(), [10]);
        assert_eq!(batcher.take(), [MAX_BYTES]);
        assert_eq!(batcher.take(), [10]);
        assert!(batcher.take().is_empty());
    }

    #[test]
    fn a_flush_hurries_what_waits_and_nothing_that_comes_later() {
        let now = Instant::now();
        let mut batcher = batcher(&[1; 12], now);
        batcher.hurry();
        batcher.push(1, 1, now);
        assert_eq!((batcher.take().len(), batcher.ready(now)), (10, Ready::Now));
        assert_eq!((batcher.take().len(), batcher.ready(now)), (3, Ready::Empty));
        batcher.push(1, 1, now);
        assert_eq!(batcher.ready(now), Ready::At(now + LINGER));
    }

    proptest! {
        #[test]
        fn batches_keep_order_and_limits_and_lose_nothing(
            sizes in prop::collection::vec(prop_oneof![1..200usize, 50_000..300_000usize, Just(MAX_BYTES)], 0..60),
        ) {
            let now = Instant::now();
            let mut batcher = batcher(&sizes, now);
            let mut taken = Vec::new();
            while batcher.ready(now) != Ready::Empty {
                let batch = batcher.take();
                prop_assert!((1..=MAX_MESSAGES).contains(&batch.len()));
                let request = ENVELOPE + batch.iter().sum::<usize>() + batch.len() - 1;
                prop_assert!(batch.len() == 1 || request <= MAX_BYTES);
                taken.extend(batch);
            }
            prop_assert_eq!(taken, sizes);
        }
    }
}
