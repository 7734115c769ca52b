//! How long handlers take: quantiles of the most recent runs.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How many runs are remembered.
const WINDOW: usize = 512;
/// The quantiles are taken anew when this part of the runs is new: to select them costs more than to run a quick handler.
const REFRESH: usize = 4;

/// Quantiles of the last few hundred durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Half of the runs were at most this long.
    pub p50: Duration,
    /// 99 of 100 runs were at most this long.
    pub p99: Duration,
}

/// A window over recent durations.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// In nanoseconds.
    recent: Vec<u64>,
    next: usize,
    unseen: usize,
    quantiles: Option<Quantiles>,
}

impl Latency {
    /// Adds a run.
    pub(crate) fn record(&self, took: Duration) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, took) = (window.next, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        match window.recent.get_mut(next) {
            Some(oldest) => *oldest = took,
            None => window.recent.push(took),
        }
        window.next = (next + 1) % WINDOW;
        window.unseen += 1;
        if window.unseen * REFRESH >= window.recent.len() {
            window.unseen = 0;
            window.quantiles = Some(quantiles(&window.recent));
        }
    }

    /// The quantiles, or `None` before the first run.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).quantiles
    }
}

fn quantiles(recent: &[u64]) -> Quantiles {
    let Some(last) = recent.len().checked_sub(1) else { return Quantiles::default() };
    // Two of the values are wanted, so there is no need to sort the others.
    let mut runs = recent.to_vec();
    let mut at =
        |percent: usize| Duration::from_nanos(*runs.select_nth_unstable((recent.len() * percent / 100).min(last)).1);
    Quantiles { p50: at(50), p99: at(99) }
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
