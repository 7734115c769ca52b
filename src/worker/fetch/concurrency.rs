//! How many polls are in flight at a time, and for how many messages each asks. Pure.
//!
//! One poll is in flight while the queue is empty, and as many as there is capacity for while it is full.
//!
//! When `max_messages` is `auto`, quick and even handlers get full batches. All messages of a batch wait for its one acknowledgement, so a
//! slow one holds the others; the more the slowest run differs from the usual one, the smaller the batch.

use std::time::Duration;

use crate::{limits::MAX_MESSAGES, worker::observe::latency::Quantiles};

/// A reply within this time did not wait for a message to arrive.
const PROMPT_ANSWER: Duration = Duration::from_millis(50);

/// The number of polls worth keeping in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollConcurrency {
    polls: usize,
    max: usize,
}

impl PollConcurrency {
    /// Starts with one poll. `max` is at least one.
    pub(crate) fn new(max: usize) -> Self {
        Self { polls: 1, max: max.max(1) }
    }

    /// Changes the maximum.
    pub(crate) fn allow(&mut self, max: usize) {
        self.max = max.max(1);
        self.polls = self.polls.min(self.max);
    }

    /// The number of polls that may be in flight.
    pub(crate) fn polls(&self) -> usize {
        self.polls
    }

    /// Adapts to the reply of one poll, which brought `got` of `asked` messages after `waited`.
    pub(crate) fn answered(&mut self, got: usize, asked: usize, waited: Duration) {
        self.polls = match got {
            0 => 1,
            _ if got == asked && asked > 1 => self.polls * 2,
            // A NORMAL queue replies from one partition, so a prompt short reply means that there may be more.
            _ if waited < PROMPT_ANSWER => self.polls + 1,
            _ => self.polls.saturating_sub(1),
        }
        .clamp(1, self.max);
    }

    /// Adapts to a poll that failed: one poll at a time until the service replies again.
    pub(crate) fn failed(&mut self) {
        self.polls = 1;
    }
}

/// The largest useful number of polls for a number of messages in flight.
pub(crate) fn max_polls(concurrency: usize) -> usize {
    concurrency.div_ceil(2).clamp(1, 64)
}

/// Below this p99, waiting for the slowest message of a batch costs nothing.
const QUICK_P99: Duration = Duration::from_millis(100);
/// Batches shrink if the p99 of the handler is more than this many times the p50.
const MAX_SPREAD: u128 = 4;

/// The number of messages to ask for, for a handler with these durations; ten before any is known.
pub(crate) fn batch_size(seen: Option<Quantiles>) -> usize {
    let Some(Quantiles { p50, p99 }) = seen else { return MAX_MESSAGES };
    if p99 <= QUICK_P99 {
        return MAX_MESSAGES;
    }
    let allowed = p50.as_micros().max(1) * MAX_SPREAD;
    let size = MAX_MESSAGES as u128 * allowed / p99.as_micros().max(1);
    usize::try_from(size).unwrap_or(MAX_MESSAGES).clamp(1, MAX_MESSAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn full_replies_add_polls_and_an_empty_one_removes_them() {
        let mut concurrency = PollConcurrency::new(6);
        let widths: Vec<_> = (0..4)
            .map(|_| {
                concurrency.answered(10, 10, Duration::ZERO);
                concurrency.polls()
            })
            .collect();
        assert_eq!(widths, [2, 4, 6, 6]);
        concurrency.answered(0, 10, LONG);
        assert_eq!(concurrency.polls(), 1);
    }

    #[test]
    fn the_most_can_change() {
        let mut concurrency = PollConcurrency::new(8);
        for _ in 0..4 {
            concurrency.answered(10, 10, Duration::ZERO);
        }
        concurrency.allow(3);
        assert_eq!(concurrency.polls(), 3);
        concurrency.allow(16);
        concurrency.answered(10, 10, Duration::ZERO);
        assert_eq!(concurrency.polls(), 6);
    }

    #[test]
    fn a_trickle_keeps_one_poll() {
        let mut concurrency = PollConcurrency::new(8);
        for _ in 0..20 {
            concurrency.answered(1, 10, LONG);
        }
        assert_eq!(concurrency.polls(), 1);
    }

    #[test]
    fn prompt_short_replies_add_polls_slowly() {
        let mut concurrency = PollConcurrency::new(8);
        concurrency.answered(4, 10, Duration::from_millis(2));
        assert_eq!(concurrency.polls(), 2);
        concurrency.failed();
        assert_eq!(concurrency.polls(), 1);
    }

    #[test]
    fn the_maximum_is_at_least_one() {
        let mut concurrency = PollConcurrency::new(0);
        concurrency.answered(1, 1, Duration::ZERO);
        assert_eq!(concurrency.polls(), 1);
    }

    fn size(p50_ms: u64, p99_ms: u64) -> usize {
        batch_size(Some(Quantiles { p50: Duration::from_millis(p50_ms), p99: Duration::from_millis(p99_ms) }))
    }

    #[test]
    fn even_handlers_get_full_batches_and_uneven_ones_small_ones() {
        assert_eq!(batch_size(None), 10);
        assert_eq!(size(1, 90), 10, "quick");
        assert_eq!(size(1000, 3000), 10, "slow but even");
        assert_eq!(size(100, 800), 5);
        assert_eq!(size(10, 10_000), 1);
        assert_eq!(size(0, 5_000), 1);
    }
}
