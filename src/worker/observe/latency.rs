//! [`Latency`]: quantiles of recent durations.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The number of durations remembered.
const WINDOW: usize = 512;
/// Recompute the quantiles after 1/4 of the window has changed, because selecting them costs more than running a quick
/// handler.
const REFRESH: usize = 4;

/// Quantiles of the last few hundred durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantiles {
    /// The median.
    pub p50: Duration,
    /// The 99th percentile.
    pub p99: Duration,
}

/// A window of recent durations.
#[derive(Debug)]
pub(crate) struct Latency {
    window: Mutex<Window>,
    /// p50 and p99 in nanoseconds; [`UNKNOWN`] before the first duration. Atomics, because they are read more often
    /// than they change.
    quantiles: [AtomicU64; 2],
}

const UNKNOWN: u64 = u64::MAX;

impl Default for Latency {
    fn default() -> Self {
        Self { window: Mutex::default(), quantiles: [const { AtomicU64::new(UNKNOWN) }; 2] }
    }
}

#[derive(Debug, Default)]
struct Window {
    /// In nanoseconds.
    recent: Vec<u64>,
    /// Where the next time goes. The oldest one stands there.
    next: usize,
    /// The number of times since the quantiles were last computed.
    unseen: usize,
}

impl Latency {
    /// Adds a duration.
    pub(crate) fn record(&self, took: Duration) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, took) = (window.next, u64::try_from(took.as_nanos()).unwrap_or(UNKNOWN - 1));
        match window.recent.get_mut(next) {
            Some(oldest) => *oldest = took,
            None => window.recent.push(took),
        }
        window.next = (next + 1) % WINDOW;
        window.unseen += 1;
        if window.unseen * REFRESH >= window.recent.len() {
            window.unseen = 0;
            for (known, new) in self.quantiles.iter().zip(quantiles(&window.recent)) {
                known.store(new, Relaxed);
            }
        }
    }

    /// The quantiles, or `None` before the first duration.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let [p50, p99] = self.quantiles.each_ref().map(|quantile| quantile.load(Relaxed));
        (p50 != UNKNOWN && p99 != UNKNOWN)
            .then(|| Quantiles { p50: Duration::from_nanos(p50), p99: Duration::from_nanos(p99) })
    }
}

fn quantiles(recent: &[u64]) -> [u64; 2] {
    // Only two values are needed, so the others need not be sorted.
    let mut runs = recent.to_vec();
    let last = runs.len().saturating_sub(1);
    [50, 99].map(|percent| match runs.len() {
        0 => 0,
        count => *runs.select_nth_unstable((count * percent / 100).min(last)).1,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn old_runs_are_forgotten() {
        let latency = Latency::default();
        assert_eq!(latency.quantiles(), None);
        for _ in 0..WINDOW {
            latency.record(Duration::from_secs(9));
        }
        for _ in 0..WINDOW + WINDOW / REFRESH {
            latency.record(Duration::from_millis(5));
        }
        let seen = latency.quantiles().unwrap();
        assert_eq!((seen.p50, seen.p99), (Duration::from_millis(5), Duration::from_millis(5)));
    }

    #[test]
    fn one_slow_run_in_a_hundred_shows_in_the_p99_only() {
        let latency = Latency::default();
        for run in 0..320 {
            latency.record(Duration::from_millis(if run % 50 == 0 { 1000 } else { 10 }));
        }
        let seen = latency.quantiles().unwrap();
        assert_eq!((seen.p50, seen.p99), (Duration::from_millis(10), Duration::from_secs(1)));
    }
}
