//! Values of settings: [`MaxMessages`], [`AckWait`], and [`OnStuck`].

use std::time::Duration;

use crate::limits::{self, ACK_WAIT_SECS, LimitError, MAX_MESSAGES, whole_seconds};

/// The number of messages that a poll asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxMessages {
    /// Ten while handlers are quick and even, fewer the more their durations vary. The default.
    #[default]
    Auto,
    /// A fixed number, 1-10.
    Fixed(usize),
}

/// The lease: how long the service waits for the acknowledgement of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckWait {
    /// Three times the p99 of recent handler calls, plus the time for the acknowledgement, within 15-300 s. Before any
    /// call, 30 s, or what the handler timeout needs.
    Auto,
    /// A fixed time in whole seconds, 15-300 s.
    Fixed(Duration),
}

impl MaxMessages {
    /// Checks a fixed number against the limits of the service.
    pub(crate) fn check(self) -> Result<(), LimitError> {
        match self {
            Self::Auto => Ok(()),
            Self::Fixed(count) => limits::in_range("max_messages", count, &(1..=MAX_MESSAGES), ""),
        }
    }
}

impl From<Duration> for AckWait {
    fn from(wait: Duration) -> Self {
        Self::Fixed(wait)
    }
}

impl AckWait {
    /// The lease to ask for, given the handler timeout and the p99 of recent calls.
    pub(crate) fn lease(self, timeout: Option<Duration>, p99: Option<Duration>) -> Duration {
        let seconds = match (self, timeout, p99) {
            (Self::Fixed(wait), ..) => return wait,
            (Self::Auto, Some(timeout), _) => whole_seconds(timeout).saturating_add(AUTO_SPARE),
            (Self::Auto, None, Some(p99)) => whole_seconds(p99.saturating_mul(3)).saturating_add(AUTO_SPARE),
            (Self::Auto, None, None) => 30,
        };
        Duration::from_secs(seconds.clamp(*ACK_WAIT_SECS.start(), *ACK_WAIT_SECS.end()))
    }
}

/// The time that [`AckWait::Auto`] adds for the acknowledgement, in seconds: two round trips and the rounding.
const AUTO_SPARE: u64 = 5;

/// What becomes of the capacity of a handler that continues although it was stopped, because it blocks its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStuck {
    /// It stays taken until the handler ends. So no more than `concurrency` handlers ever run, and if all of them are
    /// stuck, nothing is fetched any more. The default.
    #[default]
    KeepPermit,
    /// It is released for another message. So work continues at full concurrency, as long as the runtime has threads
    /// that are not blocked.
    FreePermit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_lease_follows_the_handler() {
        let seconds = Duration::from_secs;
        assert_eq!(AckWait::Auto.lease(None, None), seconds(30));
        assert_eq!(AckWait::Auto.lease(None, Some(Duration::from_millis(20))), seconds(15));
        assert_eq!(AckWait::Auto.lease(None, Some(Duration::from_millis(10_900))), seconds(38), "32.7 s and 5 s");
        assert_eq!(AckWait::Auto.lease(None, Some(seconds(40))), seconds(125));
        assert_eq!(AckWait::Auto.lease(None, Some(seconds(299))), seconds(300));
        assert_eq!(AckWait::Auto.lease(Some(seconds(60)), Some(seconds(1))), seconds(65));
        assert_eq!(AckWait::Fixed(seconds(77)).lease(Some(seconds(60)), Some(seconds(1))), seconds(77));
    }
}
