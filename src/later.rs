//! Addition to an instant that cannot overflow.

use std::time::Duration;

use tokio::time::Instant;

/// Thirty years: longer than any process runs, and short enough for every clock.
const THIRTY_YEARS: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Returns the instant `wait` after `now`, at most thirty years later.
pub fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(THIRTY_YEARS)
}
