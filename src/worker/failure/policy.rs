//! What becomes of a message that was not done: the policies that a user chooses from.

use std::time::Duration;

use crate::limits::MAX_DELAY;

/// The share of a [`Republish`] delay that is drawn at random.
const JITTER: f64 = 0.5;

/// What becomes of a message whose handler failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// It is reported as failed, comes again, and becomes a dead letter when the queue says so. The default.
    #[default]
    Redeliver,
    /// A copy is sent with a delay and an attempt count, and the original acknowledged: nothing behind it fails with it,
    /// and its retries can be days apart. Not for FIFO queues, whose order it would break, nor for Kafka queues, which have no
    /// delays.
    Republish(Republish),
}

/// How [`OnFailure::Republish`] spaces its attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Republish {
    /// How often the message is tried in all; 5 by default.
    pub max_attempts: u32,
    /// The delay after the first failure, doubled after each further one; 1 s by default. Each delay is drawn at random from the
    /// half below it, so that messages that fail together are not delivered together again.
    pub first_delay: Duration,
    /// The longest delay; one hour by default, seven days at most.
    pub max_delay: Duration,
    /// What becomes of the message after the last attempt.
    pub then: OnReject,
}

impl Default for Republish {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(3600),
            then: OnReject::Fail,
        }
    }
}

impl Republish {
    /// The defaults: 5 attempts, delays from 1 s to one hour.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the message is tried in all; 5 by default.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// The delay after the first failure, doubled after each further one; 1 s by default.
    pub fn first_delay(mut self, first_delay: Duration) -> Self {
        self.first_delay = first_delay;
        self
    }

    /// The longest delay; one hour by default, seven days at most.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// What becomes of the message after the last attempt; [`OnReject::Fail`] by default.
    pub fn then(mut self, then: OnReject) -> Self {
        self.then = then;
        self
    }
}

impl Republish {
    /// The delay before the next attempt, when `failed` have failed; `None` when that was the last. `dice`, from 0 to 1, says how
    /// much of the jitter is taken off.
    pub(crate) fn delay(&self, failed: u32, dice: f64) -> Option<Duration> {
        if failed >= self.max_attempts {
            return None;
        }
        let doubled = self.first_delay.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
        Some(doubled.min(self.max_delay).min(MAX_DELAY).mul_f64(1.0 - JITTER * dice))
    }
}

/// What becomes of a message that was rejected, or that failed for the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnReject {
    /// It becomes a dead letter, with the reason and the error's text: at once on this project's server; on another it fails, and is
    /// redelivered until the queue makes it one. A queue without dead letters redelivers it for ever, at growing intervals. The
    /// default.
    #[default]
    Fail,
    /// A copy with the reason and its history goes to this queue (name or id), and the original is acknowledged.
    Park(String),
    /// It is acknowledged and gone.
    Discard,
}

/// What becomes of a message whose body the handler could not decode ([`Delivery::json`](crate::worker::Delivery::json)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUndecodable {
    /// As [`OnReject`] says of every reject: what cannot be decoded now never can. The default.
    #[default]
    Reject,
    /// As [`OnFailure`] says of every failure: a newer version of the handler may be on its way.
    Retry,
    /// This, whatever becomes of other rejects.
    Own(OnReject),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn republish(max_attempts: u32) -> Republish {
        Republish { max_attempts, max_delay: Duration::from_secs(10), ..Republish::default() }
    }

    #[test]
    fn delays_double_up_to_the_longest_and_end_with_the_attempts() {
        let delay = |failed, dice| republish(6).delay(failed, dice).map(|delay| delay.as_millis());
        let delays: Vec<_> = (1..=7).map(|failed| delay(failed, 0.0)).collect();
        assert_eq!(delays, [Some(1_000), Some(2_000), Some(4_000), Some(8_000), Some(10_000), None, None]);
        assert_eq!(republish(u32::MAX).delay(1_000_000, 0.0), Some(Duration::from_secs(10)));
        let least: Vec<_> = (1..=5).map(|failed| delay(failed, 1.0)).collect();
        assert_eq!(least, [Some(500), Some(1_000), Some(2_000), Some(4_000), Some(5_000)], "half of it is jitter");
    }
}
