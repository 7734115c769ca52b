//! [`Occasionally`]: how often a worker warns about something that may concern every message.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The minimum time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Counts what happened since the last warning about it.
///
/// One line a minute with the number of cases is enough, because every case has the same cause, such as a missing dead-letter queue.
/// The server's `log_limit` admits ten, because each of its lines names another peer, key or message.
#[derive(Debug, Default)]
pub(crate) struct Occasionally(Mutex<Unreported>);

#[derive(Debug, Default)]
struct Unreported {
    warned: Option<Instant>,
    /// The number of events since that warning.
    count: u64,
}

impl Occasionally {
    /// Counts one more. If a warning is due, returns the number that it is about.
    pub(crate) fn due(&self) -> Option<u64> {
        // No code that can panic runs under this lock.
        let mut unreported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        unreported.count += 1;
        if unreported.warned.is_some_and(|warned| now - warned < WARNING_INTERVAL) {
            return None;
        }
        unreported.warned = Some(now);
        Some(std::mem::take(&mut unreported.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_warning_is_due_a_minute() {
        let rejected = Occasionally::default();
        assert_eq!([(); 3].map(|()| rejected.due()), [Some(1), None, None]);
        tokio::time::advance(WARNING_INTERVAL).await;
        assert_eq!([(); 2].map(|()| rejected.due()), [Some(3), None]);
    }
}
