//! [`Histogram`]: a histogram of durations with fixed buckets. Pure.

use std::time::Duration;

/// Upper bounds in seconds, from a disk with a battery-backed cache to a disk that hangs.
const BOUNDS: [f64; 12] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// A histogram of durations with buckets from 0.1 ms to 5 s. Each duration is counted in one bucket: the counts are not cumulative.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The count of each bucket. The last bucket has no upper bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Records a duration.
    #[cfg(any(feature = "disk", feature = "postgres"))]
    pub(crate) fn record(&mut self, took: Duration) {
        let range = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.counts[range] += 1;
        self.sum += took;
    }

    /// Adds the durations of another histogram.
    #[cfg(feature = "postgres")]
    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
    }

    /// The number of recorded durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of the recorded durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The upper bound of each bucket in seconds and its count. The last bound is infinite.
    pub fn ranges(&self) -> impl Iterator<Item = (f64, u64)> {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_in_the_first_range_that_holds_it() {
        let mut durations = Histogram::default();
        for millis in [1, 2, 9_000] {
            durations.record(Duration::from_millis(millis));
        }
        let counted: Vec<_> = durations.ranges().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0.001, 1), (0.002_5, 1), (f64::INFINITY, 1)], "a bound belongs to its range");
        assert_eq!((durations.count(), durations.sum()), (3, Duration::from_millis(9_003)));
    }
}
