//! [`Rates`]: how many messages per second enter each stream, and how many each cursor acknowledges. Pure.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::store::{CursorId, StreamId};

/// The time between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of samples that are kept: rates are of the last 10 to 15 seconds.
const SAMPLES: usize = 3;
/// A rate over a shorter time than this would be noise.
const SHORTEST: Duration = Duration::from_secs(1);

/// The latest samples, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Rates(VecDeque<Sample>);

/// All totals at one time, each list in the order of its numbers.
#[derive(Debug)]
pub(crate) struct Sample {
    /// When it was taken.
    pub(crate) at: Instant,
    /// The messages that ever entered each stream.
    pub(crate) entered: Vec<(StreamId, u64)>,
    /// The messages that each cursor ever consumed.
    pub(crate) consumed: Vec<(CursorId, u64)>,
}

impl Rates {
    /// Adds a sample.
    pub(crate) fn record(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Messages per second that enter a stream, of which `total` ever did.
    pub(crate) fn entered(&self, now: Instant, stream: StreamId, total: u64) -> f64 {
        self.rate(now, total, |sample| find(&sample.entered, &stream))
    }

    /// Messages per second that a cursor consumes, which ever consumed `total`.
    pub(crate) fn consumed(&self, now: Instant, cursor: CursorId, total: u64) -> f64 {
        self.rate(now, total, |sample| find(&sample.consumed, &cursor))
    }

    fn rate(&self, now: Instant, total: u64, at: impl Fn(&Sample) -> u64) -> f64 {
        let Some(sample) = self.0.front() else { return 0.0 };
        let elapsed = now.saturating_duration_since(sample.at).max(SHORTEST);
        // A float counts the messages of any queue exactly enough.
        #[allow(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
        let count = total.saturating_sub(at(sample)) as f64;
        count / elapsed.as_secs_f64()
    }
}

/// The total of a number in a list; 0 for a queue or group that is younger than the sample.
fn find<N: Ord>(totals: &[(N, u64)], number: &N) -> u64 {
    let found = totals.binary_search_by(|(other, _)| other.cmp(number)).ok().and_then(|at| totals.get(at));
    found.map_or(0, |(_, total)| *total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_samples_that_are_kept() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let is = |rate: f64, wanted: f64| assert!((rate - wanted).abs() < 1e-9, "{rate} is not {wanted}");
        is(rates.entered(start, StreamId(1), 100), 0.0);
        let mut at = start;
        for total in [0, 100, 200, 300] {
            rates.record(Sample { at, entered: vec![(StreamId(1), total)], consumed: vec![(CursorId(7), 5)] });
            at += SAMPLE_INTERVAL;
        }
        is(rates.entered(at, StreamId(1), 400), 20.0);
        is(rates.consumed(at, CursorId(7), 5), 0.0);
        is(rates.consumed(at, CursorId(8), 30), 2.0);
    }

    #[test]
    fn the_first_moment_gives_no_absurd_rate() {
        let (mut rates, at) = (Rates::default(), Instant::now());
        rates.record(Sample { at, entered: Vec::new(), consumed: Vec::new() });
        assert!(rates.entered(at, StreamId(1), 3) <= 3.0);
    }
}
