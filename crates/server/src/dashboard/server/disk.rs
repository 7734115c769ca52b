//! [`DiskHistory`]: the size of the files and the free space of the disk in the last day, and when the disk will be full.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{dashboard::series::Range, metrics::disk_space};

/// The time between two samples.
const STEP: Duration = Duration::from_secs(60);
/// The number of samples that are kept: a day.
const MAX_SAMPLES: usize = 1_440;
/// The number of samples that the forecast looks at: three hours.
const TREND_SAMPLES: usize = 180;
/// The time after which a trend means something.
const EARLIEST: Duration = Duration::from_secs(5 * 60);

/// When a disk is full, if it goes on like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskForecast {
    /// It is too early to tell.
    Unknown,
    /// The free space does not shrink.
    Never,
    /// After this time, at this many bytes an hour.
    FullIn(Duration, u64),
}

/// Samples of the disk, the oldest first.
#[derive(Debug, Default)]
pub(super) struct DiskHistory(Mutex<VecDeque<Sample>>);

/// The disk at one time, in bytes.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    used: u64,
    free: u64,
}

/// The unit of a chart of sizes: whole numbers of it are exact enough for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Kilobytes,
    Megabytes,
    Gigabytes,
}

impl Unit {
    /// The unit in which a size has at least three digits.
    pub(super) fn of(size: u64) -> Self {
        match size {
            0..1_000_000_000 => Self::Kilobytes,
            1_000_000_000..1_000_000_000_000 => Self::Megabytes,
            _ => Self::Gigabytes,
        }
    }

    /// Its name in URLs and charts.
    pub(super) fn as_str(self) -> &'static str {
        ["kB", "MB", "GB"][self as usize]
    }

    /// The unit of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Kilobytes, Self::Megabytes, Self::Gigabytes].into_iter().find(|unit| unit.as_str() == name)
    }

    fn count(self, size: u64) -> u64 {
        size / [1_000, 1_000_000, 1_000_000_000][self as usize]
    }
}

impl DiskHistory {
    /// Samples the disk of a directory until it is dropped.
    pub(super) async fn run(&self, directory: &Path) {
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some(free) = disk_space::free(directory) {
                self.add(disk_space::size(Some(directory.to_owned())).await, free);
            }
        }
    }

    fn add(&self, used: u64, free: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample { at: Instant::now(), used, free });
    }

    /// The last hours or the last day as charts take it: the size of the files in `used`, the free space in `free`, each in its unit.
    /// The last point is of `now_ms`, in Unix milliseconds.
    pub(super) fn chart(&self, range: Range, used: Unit, free: Unit, now_ms: i64) -> String {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if range == Range::Day { MAX_SAMPLES } else { TREND_SAMPLES };
        let shown = || samples.iter().skip(samples.len().saturating_sub(most));
        let (used, free): (Vec<_>, Vec<_>) =
            shown().map(|sample| (used.count(sample.used), free.count(sample.free))).unzip();
        json!({ "used": used, "free": free, "end": now_ms / 1_000, "step": STEP.as_secs() }).to_string()
    }

    /// When the disk is full, by the samples of the last three hours.
    pub(super) fn forecast(&self) -> DiskForecast {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = samples.get(samples.len().saturating_sub(TREND_SAMPLES));
        let (Some(first), Some(last)) = (first, samples.back()) else { return DiskForecast::Unknown };
        let (took, used) = (last.at.duration_since(first.at), first.free.saturating_sub(last.free));
        match () {
            () if took < EARLIEST => DiskForecast::Unknown,
            () if used == 0 => DiskForecast::Never,
            () => {
                let seconds = u128::from(took.as_secs());
                let left = u128::from(last.free) * seconds / u128::from(used);
                let each_hour = u128::from(used) * 3_600 / seconds;
                let left = Duration::from_secs(u64::try_from(left).unwrap_or(u64::MAX));
                DiskForecast::FullIn(left, u64::try_from(each_hour).unwrap_or(u64::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_forecast_follows_the_free_space() {
        let history = DiskHistory::default();
        assert_eq!(history.forecast(), DiskForecast::Unknown);
        for minute in 0..6 {
            history.add(0, 10_000 - 100 * minute);
            assert_eq!(history.forecast() == DiskForecast::Unknown, minute < 5, "{minute}");
            advance(STEP).await;
        }
        assert_eq!(history.forecast(), DiskForecast::FullIn(Duration::from_secs(95 * 60), 6_000));
        history.add(0, 10_000);
        assert_eq!(history.forecast(), DiskForecast::Never);
        for _ in 0..TREND_SAMPLES {
            advance(STEP).await;
            history.add(0, 7_000);
        }
        assert_eq!(history.forecast(), DiskForecast::Never, "what is older than three hours does not count");
    }
    #[tokio::test(start_paused = true)]
    async fn charts_have_a_day_in_units_of_three_digits() {
        let history = DiskHistory::default();
        for minute in 0..2_000 {
            history.add(5_000_000 + 1_000 * minute, 40_000_000_000);
        }
        let chart = |range| {
            let chart = history.chart(range, Unit::of(5_000_000), Unit::of(40_000_000_000), 90_000_000);
            serde_json::from_str::<serde_json::Value>(&chart).unwrap_or_default()
        };
        let (day, hours) = (chart(Range::Day), chart(Range::Hours));
        assert_eq!((day["used"][0].as_u64(), day["used"][1_439].as_u64()), (Some(5_560), Some(6_999)));
        assert_eq!(hours["free"].as_array().map(Vec::len), Some(180));
        assert_eq!((&hours["free"][0], &hours["step"], &hours["end"]), (&40_000.into(), &60.into(), &90_000.into()));
        for unit in [Unit::Kilobytes, Unit::Megabytes, Unit::Gigabytes] {
            assert_eq!(Unit::parse(unit.as_str()), Some(unit));
        }
    }
}
