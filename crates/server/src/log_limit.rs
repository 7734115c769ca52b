//! [`Warnings`]: bounds log lines that strangers can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many warnings are logged per window.
const WARNINGS: u32 = 10;
/// The window of [`WARNINGS`].
const WINDOW: Duration = Duration::from_secs(60);

/// BodyLimits the warnings of one kind, because callers without a key can cause them.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    used: u32,
    suppressed: u64,
}

impl Warnings {
    /// Whether one more may be logged now: the number of those that were not since the last one.
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
