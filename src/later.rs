//! Points in time that any duration leads to.

use std::time::Duration;

use tokio::time::Instant;

/// Thirty years: for ever, to a process, and within what every clock can add.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The time `wait` after `now`; a wait of more than thirty years leads to their end.
pub fn after(now: Instant, wait: Duration) -> Instant {
    now + wait.min(FOR_EVER)
}
