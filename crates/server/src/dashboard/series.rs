//! [`Series`]: the last minutes and hours of some numbers, sampled once a second.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

/// A range of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// Ten minutes by the second.
    #[default]
    Minutes,
    /// Three hours by ten seconds.
    Hours,
    /// A day by the minute.
    Day,
}

impl Range {
    /// All ranges, the shortest first.
    pub const ALL: [Self; 3] = [Self::Minutes, Self::Hours, Self::Day];

    /// Its name in URLs.
    pub fn as_str(self) -> &'static str {
        ["10m", "3h", "24h"][self as usize]
    }

    /// The range of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.as_str() == name)
    }

    /// The number of seconds of one point.
    pub fn step(self) -> u64 {
        [1, 10, 60][self as usize]
    }

    /// The number of its points.
    pub(crate) fn length(self) -> usize {
        [600, 1_080, 1_440][self as usize]
    }
}

/// Samples of `N` numbers. Rings of a fixed size keep one second for ten minutes, ten seconds for three hours and a minute for a day.
#[derive(Debug)]
pub struct Series<const N: usize> {
    /// The number of samples so far.
    samples: u64,
    rings: [VecDeque<[u32; N]>; 3],
}

impl<const N: usize> Default for Series<N> {
    fn default() -> Self {
        Self { samples: 0, rings: Default::default() }
    }
}

impl<const N: usize> Series<N> {
    /// Adds a sample to the ring of seconds, and the mean of the last ones to the others when it is due.
    pub fn push(&mut self, sample: [u32; N]) {
        self.samples += 1;
        push(&mut self.rings[0], sample, Range::Minutes);
        for range in [Range::Hours, Range::Day] {
            if self.samples.is_multiple_of(range.step()) {
                let mean = mean(&self.rings[0], usize::try_from(range.step()).unwrap_or(1));
                push(&mut self.rings[range as usize], mean, range);
            }
        }
    }

    /// The last `most` values of a column.
    pub fn column(&self, column: usize, range: Range, most: usize) -> Vec<u32> {
        let ring = &self.rings[range as usize];
        let skipped = ring.len().saturating_sub(most);
        ring.iter().skip(skipped).filter_map(|sample| sample.get(column)).copied().collect()
    }

    /// All columns with their names, as the charts take them. The last point is of `now_ms`, in Unix milliseconds.
    pub fn chart(&self, names: [&str; N], range: Range, now_ms: i64) -> String {
        let columns = names.into_iter().enumerate();
        let mut chart: Map<String, Value> =
            columns.map(|(place, name)| (name.to_owned(), json!(self.column(place, range, usize::MAX)))).collect();
        chart.insert("end".to_owned(), json!(now_ms / 1_000));
        chart.insert("step".to_owned(), json!(range.step()));
        Value::Object(chart).to_string()
    }

    #[cfg(test)]
    pub(crate) fn lengths(&self) -> [usize; 3] {
        [0, 1, 2].map(|ring| self.rings[ring].len())
    }

    /// The memory that it takes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.rings.iter().map(|ring| ring.capacity() * size_of::<[u32; N]>()).sum()
    }
}

fn push<const N: usize>(ring: &mut VecDeque<[u32; N]>, sample: [u32; N], range: Range) {
    if ring.len() >= range.length() {
        ring.pop_front();
    } else if ring.len() == ring.capacity() {
        // Doubling alone would end at nearly twice the length.
        ring.reserve_exact(ring.len().max(60).min(range.length() - ring.len()));
    }
    ring.push_back(sample);
}

/// The mean of the last `count` samples.
fn mean<const N: usize>(ring: &VecDeque<[u32; N]>, count: usize) -> [u32; N] {
    let mut sums = [0_u64; N];
    let last = ring.iter().rev().take(count);
    let taken = u64::try_from(last.len()).unwrap_or(1).max(1);
    last.for_each(|sample| sums.iter_mut().zip(sample).for_each(|(sum, value)| *sum += u64::from(*value)));
    sums.map(|sum| u32::try_from(sum / taken).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rings_are_bounded_and_keep_means() {
        let mut series = Series::<2>::default();
        for second in 0..90_000_u32 {
            series.push([second, 7]);
        }
        assert_eq!(series.lengths(), [600, 1_080, 1_440]);
        assert_eq!(series.bytes(), (600 + 1_080 + 1_440) * 8);
        assert_eq!(series.column(0, Range::Minutes, 2), [89_998, 89_999]);
        assert_eq!(series.column(0, Range::Hours, 1), [89_994]);
        assert_eq!(series.column(1, Range::Day, 1), [7]);
        let chart = series.chart(["a", "b"], Range::Day, 90_000_000);
        assert!(chart.contains(r#""end":90000,"step":60"#) && chart.starts_with(r#"{"a":["#), "{chart}");
    }
}
