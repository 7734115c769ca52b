//! [`Warnings`]: limits the rate of log lines that strangers can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The maximum number of lines per window.
const WARNINGS: u32 = 10;
/// The window of [`WARNINGS`].
const WINDOW: Duration = Duration::from_secs(60);

/// Limits the rate of one kind of log line.
///
/// Several lines a minute, because each names another peer, key or message. A worker, whose warnings of a kind have one cause, logs
/// one line a minute with the number of cases.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl Warnings {
    /// The number of lines that were suppressed since the last one, if another line may be logged now; otherwise `None`.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (window.began, window.used) = (Some(now), 0);
        }
        if window.used >= WARNINGS {
            window.suppressed += 1;
            return None;
        }
        window.used += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warnings_are_bounded_and_those_left_out_are_counted() {
        let warnings = Warnings::default();
        let admitted = (0..25).filter(|_| warnings.admit(Instant::now()).is_some()).count();
        assert_eq!(admitted, 10);
        tokio::time::advance(WINDOW).await;
        assert_eq!(warnings.admit(Instant::now()), Some(15));
        assert_eq!(warnings.admit(Instant::now()), Some(0));
    }
}
