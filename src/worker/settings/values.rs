//! How much a poll asks for, how long a lease lasts, and what becomes of a handler that does not stop.

use std::time::Duration;

use crate::{
    limits::{self, ACK_WAIT_SECS, MAX_MESSAGES, whole_seconds},
    worker::settings::invalid::InvalidSettings,
};

/// How many messages a poll asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxMessages {
    /// Ten while handlers are quick and even, fewer the more their durations differ. The default.
    #[default]
    Auto,
    /// This many: 1-10.
    Fixed(usize),
}

/// How long the service waits for the acknowledgement of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckWait {
    /// Three times the p99 of the handler's recent runs and what the acknowledgement needs, within 15-300 s; 30 s, or what
    /// the handler's timeout needs, before anything is known.
    Auto,
    /// This long, in whole seconds: 15-300 s.
    Fixed(Duration),
}

impl MaxMessages {
    /// Checks a fixed number against the limits of the service.
    pub(crate) fn check(self) -> Result<(), InvalidSettings> {
        match self {
            Self::Auto => Ok(()),
            Self::Fixed(count) => Ok(limits::in_range("max_messages", count, &(1..=MAX_MESSAGES), "")?),
        }
    }
}

impl From<Duration> for AckWait {
    fn from(wait: Duration) -> Self {
        Self::Fixed(wait)
    }
}

impl AckWait {
    /// The lease to ask for, for a handler with this timeout and this p99.
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

/// What [`AckWait::Auto`] adds to the time of the handler, in seconds: two round trips and the rounding.
const AUTO_SPARE: u64 = 5;

/// What becomes of the place of a handler that goes on although it was stopped, because it blocks its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStuck {
    /// It stays taken until the handler ends: no more than `concurrency` handlers ever run, and when all of them are stuck nothing is
    /// fetched any more. The default.
    #[default]
    KeepPlace,
    /// It is given to another message: work goes on at full width as long as the runtime has threads that are not blocked.
    FreePlace,
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
