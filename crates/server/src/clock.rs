//! [`Clock`]: the source of wall-clock time for creation times, due times, retention and signatures.
//!
//! Nothing else reads the wall clock. Durations and lease deadlines use tokio's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The longest sleep towards a wall-clock time, because the clock of the system may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// A source of wall-clock time. The default is the clock of the system.
///
/// # Examples
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// use dms_server::clock::Clock;
///
/// // Current-thread, with tokio's `test-util`, which lets a test pass days in a moment.
/// #[tokio::main(flavor = "current_thread", start_paused = true)]
/// async fn main() {
///     let clock = Clock::following_tokio(UNIX_EPOCH);
///     tokio::time::advance(Duration::from_secs(3 * 86_400)).await;
///     assert_eq!(clock.now_ms(), 3 * 86_400_000);
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    System,
    /// A wall clock that a test sets.
    #[cfg(test)]
    Set(&'static std::sync::atomic::AtomicI64),
    Tokio {
        start_ms: i64,
        started: Instant,
    },
}

impl Clock {
    /// The clock of the system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and then follows tokio's clock, so that a paused runtime passes days in milliseconds. Changes of
    /// the system's clock do not move it.
    ///
    /// Two clocks from equal starts at different times differ. Clone one instead.
    pub fn following_tokio(start: SystemTime) -> Self {
        Self(Source::Tokio { start_ms: unix_ms(start), started: Instant::now() })
    }

    /// A clock that shows the same time now and then follows tokio's clock, even if this clock is set.
    pub(crate) fn steady(&self) -> Self {
        match self.0 {
            Source::Tokio { .. } => *self,
            _ => Self(Source::Tokio { start_ms: self.now_ms(), started: Instant::now() }),
        }
    }

    /// A wall clock that a test sets.
    #[cfg(test)]
    pub(crate) fn set_by(now_ms: &'static std::sync::atomic::AtomicI64) -> Self {
        Self(Source::Set(now_ms))
    }

    /// Whether it follows tokio's clock, which tests move at will.
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self.0, Source::Tokio { .. })
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        match self.0 {
            Source::System => unix_ms(SystemTime::now()),
            #[cfg(test)]
            Source::Set(now_ms) => now_ms.load(std::sync::atomic::Ordering::Relaxed),
            Source::Tokio { start_ms, started } => start_ms.saturating_add(whole_ms(started.elapsed())),
        }
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now_ms()).unwrap_or(0))
    }

    /// When to check again for something that is due at `at_ms`: at that time, or earlier if the clock may be set meanwhile.
    pub(crate) fn instant_of(&self, at_ms: i64) -> Instant {
        match self.0 {
            #[cfg(test)]
            Source::Set(_) => Instant::now() + LONGEST_SLEEP,
            Source::System => {
                let left = u64::try_from(at_ms.saturating_sub(self.now_ms())).unwrap_or(0);
                Instant::now() + Duration::from_millis(left).min(LONGEST_SLEEP)
            }
            Source::Tokio { start_ms, started } => {
                started + Duration::from_millis(u64::try_from(at_ms.saturating_sub(start_ms)).unwrap_or(0))
            }
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// A duration in whole milliseconds, for arithmetic with wall-clock times.
pub(crate) fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A duration in whole milliseconds, for answers and logs.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, whole_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_following_clock_passes_days_with_a_paused_runtime() {
        let clock = Clock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_000));
        assert_eq!(clock.now_ms(), 1_000_000);
        tokio::time::advance(Duration::from_secs(3 * 86_400)).await;
        assert_eq!(clock.now_ms(), 1_000_000 + 3 * 86_400_000);
        assert_eq!(clock.instant_of(clock.now_ms() + 5), Instant::now() + Duration::from_millis(5));
    }

    #[test]
    fn a_sleep_on_the_system_clock_is_cut_because_it_may_be_set() {
        let clock = Clock::system();
        let far = clock.instant_of(clock.now_ms() + 86_400_000);
        assert!(far <= Instant::now() + LONGEST_SLEEP);
    }
}
