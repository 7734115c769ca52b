//! [`RateWindow`]: how often something happened in the last minute.

use std::time::Duration;

use tokio::time::Instant;

/// How many seconds are looked back at.
const SECONDS: usize = 60;

/// Counts by the second, of the last minute.
#[derive(Debug)]
pub(crate) struct RateWindow {
    started: Instant,
    /// The second that was counted last, since the start.
    now: u64,
    counts: [u32; SECONDS],
}

impl RateWindow {
    /// A window that begins at `now`.
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, now: 0, counts: [0; SECONDS] }
    }

    /// Counts one.
    pub(crate) fn count(&mut self, now: Instant) {
        let slot = self.turn_to(now);
        self.counts[slot] = self.counts[slot].saturating_add(1);
    }

    /// How many per second, on average over the last minute, or since the start where that is less.
    pub(crate) fn per_second(&mut self, now: Instant) -> f64 {
        self.turn_to(now);
        let seconds = (now - self.started).clamp(Duration::from_secs(1), Duration::from_secs(SECONDS as u64));
        self.counts.iter().map(|count| f64::from(*count)).sum::<f64>() / seconds.as_secs_f64()
    }

    /// Clears the seconds older than a minute. Returns the slot of this second.
    fn turn_to(&mut self, now: Instant) -> usize {
        let second = (now - self.started).as_secs();
        let passed = usize::try_from(second.saturating_sub(self.now)).unwrap_or(SECONDS).min(SECONDS);
        for step in 1..=passed {
            self.counts[place(second - (passed - step) as u64)] = 0;
        }
        self.now = self.now.max(second);
        place(self.now)
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut window = RateWindow::new(start);
        (0..10).for_each(|_| window.count(at(0)));
        let rates: Vec<_> = [0, 5, 59, 60, 500].into_iter().map(|second| window.per_second(at(second))).collect();
        assert_eq!(rates, [10.0, 2.0, 10.0 / 59.0, 0.0, 0.0]);
        window.count(at(500));
        window.count(at(530));
        assert_eq!(window.per_second(at(559)), 2.0 / 60.0);
        assert_eq!(window.per_second(at(560)), 1.0 / 60.0);
    }
}
