//! [`Minutes`]: how often something happened in the last minutes.

use tokio::time::Instant;

/// Counts of the last `N` minutes, by the minute.
#[derive(Debug)]
pub(crate) struct Minutes<const N: usize> {
    began: Instant,
    /// The minute of the last count.
    latest: usize,
    counts: [u32; N],
}

impl<const N: usize> Default for Minutes<N> {
    fn default() -> Self {
        Self { began: Instant::now(), latest: 0, counts: [0; N] }
    }
}

impl<const N: usize> Minutes<N> {
    /// Counts one more.
    pub(crate) fn count(&mut self) {
        let now = self.now();
        self.clear_until(now);
        self.counts[now % N] = self.counts[now % N].saturating_add(1);
    }

    /// The number in the last `minutes`, the current one included; `N` at most.
    pub(crate) fn sum(&self, minutes: usize) -> u64 {
        let now = self.now();
        let of = |ago: usize| match now.checked_sub(ago) {
            Some(minute) if minute <= self.latest && self.latest - minute < N => u64::from(self.counts[minute % N]),
            _ => 0,
        };
        (0..minutes.min(N)).map(of).sum()
    }

    fn now(&self) -> usize {
        usize::try_from(self.began.elapsed().as_secs() / 60).unwrap_or(usize::MAX)
    }

    fn clear_until(&mut self, now: usize) {
        (self.latest + 1..=now).rev().take(N).for_each(|minute| self.counts[minute % N] = 0);
        self.latest = self.latest.max(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_last_minutes_count() {
        let mut minutes = Minutes::<10>::default();
        for _ in 0..30 {
            minutes.count();
            advance(Duration::from_secs(60)).await;
        }
        minutes.count();
        assert_eq!((minutes.sum(1), minutes.sum(3), minutes.sum(10), minutes.sum(60)), (1, 3, 10, 10));
        advance(Duration::from_secs(8 * 60)).await;
        assert_eq!((minutes.sum(1), minutes.sum(10)), (0, 2));
        advance(Duration::from_secs(500 * 60)).await;
        assert_eq!(minutes.sum(10), 0);
        minutes.count();
        assert_eq!(minutes.sum(10), 1);
    }
}
