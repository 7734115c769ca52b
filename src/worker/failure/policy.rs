//! The failure policies that a user can choose.

use std::time::Duration;

use crate::limits::MAX_DELAY;

/// The fraction of a [`Republish`] delay that is random.
const JITTER: f64 = 0.5;

/// How to keep rejected messages from being redelivered endlessly.
pub(crate) const REMEDY: &str =
    "create the queue with max_consume_count, which enables dead letters, or set on_reject to park or discard";

/// The policy for a message whose handler failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// The message is reported as failed and redelivered. It becomes a dead letter when the queue's `max_consume_count`
    /// is reached. The default.
    #[default]
    Redeliver,
    /// A copy is sent with a delay and an attempt count, and the original is acknowledged. So messages after it do not
    /// fail with it, and retries can be days apart. Not for FIFO queues, whose order it would break, nor for Kafka
    /// queues, which have no delays.
    Republish(Republish),
}

/// The attempts and delays of [`OnFailure::Republish`].
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::worker::{OnFailure, OnReject, Republish};
///
/// let policy = Republish::new()
///     .max_attempts(8)
///     .first_delay(Duration::from_secs(5))
///     .then(OnReject::Park("failed-orders".into()));
/// let on_failure = OnFailure::Republish(policy); // for WorkerBuilder::on_failure
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Republish {
    /// The total number of attempts; 5 by default.
    pub max_attempts: u32,
    /// The delay after the first failure, doubled after each further one; 1 s by default. Each delay is random between
    /// half of it and all of it, so that messages that failed together are not redelivered together.
    pub first_delay: Duration,
    /// The longest delay; one hour by default, seven days at most.
    pub max_delay: Duration,
    /// The policy for the message after the last attempt; [`OnReject::Fail`] by default.
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

    /// The total number of attempts. Default: 5.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// The delay after the first failure, doubled after each further one. Default: 1 s.
    pub fn first_delay(mut self, first_delay: Duration) -> Self {
        self.first_delay = first_delay;
        self
    }

    /// The longest delay, at most seven days. Default: one hour.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// The policy for the message after the last attempt. Default: [`OnReject::Fail`].
    pub fn then(mut self, then: OnReject) -> Self {
        self.then = then;
        self
    }
}

impl Republish {
    /// The delay before the next attempt after `failed` failures; `None` after the last one. `dice`, from 0 to 1, is
    /// the fraction of the jitter that is subtracted.
    pub(crate) fn delay(&self, failed: u32, dice: f64) -> Option<Duration> {
        if failed >= self.max_attempts {
            return None;
        }
        let doubled = self.first_delay.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1)));
        Some(doubled.min(self.max_delay).min(MAX_DELAY).mul_f64(1.0 - JITTER * dice))
    }
}

/// The policy for a message that was rejected, or that failed for the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnReject {
    /// The message becomes a dead letter, with the reason and the error's text. This project's server does so at once;
    /// other services redeliver the message until its `max_consume_count` is reached. A queue without dead letters
    /// redelivers it endlessly, at growing intervals. The default.
    #[default]
    Fail,
    /// A copy with the reason and the history goes to this queue (name or id), and the original is acknowledged.
    Park(String),
    /// The message is acknowledged, and is gone.
    Discard,
}

/// The policy for a message whose body the handler could not decode
/// ([`Delivery::json`](crate::worker::Delivery::json)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnUndecodable {
    /// As [`OnReject`] for every reject, because a body that cannot be decoded now never can be. The default.
    #[default]
    Reject,
    /// As [`OnFailure`] for every failure, because a newer version of the handler may be able to decode it.
    Retry,
    /// This policy, independent of other rejects.
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
