//! [`DiskHistory`]: the free space of the disk in the last hours, and when it will be full.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::metrics::disk_space;

/// The time between two samples.
const STEP: Duration = Duration::from_secs(60);
/// The number of samples that are kept: three hours.
const MAX_SAMPLES: usize = 180;
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

/// Samples of the free bytes, the oldest first.
#[derive(Debug, Default)]
pub(super) struct DiskHistory(Mutex<VecDeque<(Instant, u64)>>);

impl DiskHistory {
    /// Samples the disk of a directory until it is dropped.
    pub(super) async fn run(&self, directory: &Path) {
        let mut ticks = interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            if let Some(free) = disk_space::free(directory) {
                self.add(free);
            }
        }
    }

    fn add(&self, free: u64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back((Instant::now(), free));
    }

    /// When the disk is full, by the samples of the last three hours.
    pub(super) fn forecast(&self) -> DiskForecast {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some((began, first)), Some((ended, last))) = (samples.front(), samples.back()) else {
            return DiskForecast::Unknown;
        };
        let (took, used) = (ended.duration_since(*began), first.saturating_sub(*last));
        match () {
            () if took < EARLIEST => DiskForecast::Unknown,
            () if used == 0 => DiskForecast::Never,
            () => {
                let seconds = u128::from(took.as_secs());
                let left = u128::from(*last) * seconds / u128::from(used);
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
            history.add(10_000 - 100 * minute);
            assert_eq!(history.forecast() == DiskForecast::Unknown, minute < 5, "{minute}");
            advance(STEP).await;
        }
        assert_eq!(history.forecast(), DiskForecast::FullIn(Duration::from_secs(95 * 60), 6_000));
        history.add(10_000);
        assert_eq!(history.forecast(), DiskForecast::Never);
        for _ in 0..MAX_SAMPLES {
            advance(STEP).await;
            history.add(7_000);
        }
        assert_eq!(history.forecast(), DiskForecast::Never, "what is older than three hours does not count");
    }
}
