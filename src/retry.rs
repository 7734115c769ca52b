//! [`RetryPolicy`]: delays that grow with each try, and the [`Schedule`] of one operation.
//!
//! This is the only file that names the `backoff` crate.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};

/// An exponential backoff with jitter and a maximum number of tries.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::RetryPolicy;
///
/// let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
/// let policy = RetryPolicy::try_new(first, longest, 2.0, 0.5)?.max_attempts(3);
/// let mut schedule = policy.schedule();
/// assert!(schedule.next_delay().is_some() && schedule.next_delay().is_some());
/// assert_eq!(schedule.next_delay(), None, "three tries have two delays between them");
/// # Ok::<(), dms_worker::retry::InvalidRetryPolicy>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    initial: Duration,
    max: Duration,
    multiplier: f64,
    jitter: f64,
    max_attempts: Option<u32>,
}

/// A retry policy that cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what} is {value}: {allowed}")]
pub struct InvalidRetryPolicy {
    what: &'static str,
    value: String,
    allowed: &'static str,
}

impl RetryPolicy {
    /// A policy whose delay starts at `initial`, is multiplied by `multiplier` after each try, and never exceeds `max`.
    ///
    /// `jitter`, from 0 to 1, is the part of each delay that is random, so that many clients do not retry at the same
    /// moment. The number of tries is 4 unless [`max_attempts`](Self::max_attempts) changes it.
    ///
    /// # Errors
    /// When `initial` is zero, `max` is shorter than `initial` or longer than a day, `multiplier` is not between
    /// 1 and 100, or `jitter` is not between 0 and 1.
    pub fn try_new(initial: Duration, max: Duration, multiplier: f64, jitter: f64) -> Result<Self, InvalidRetryPolicy> {
        let refuse = |what, value, allowed| Err(InvalidRetryPolicy { what, value, allowed });
        if initial.is_zero() {
            return refuse("the initial retry delay", "0".to_owned(), "it must be longer");
        }
        if max < initial || max > Duration::from_secs(86_400) {
            return refuse(
                "the longest retry delay",
                format!("{max:?}"),
                "from the initial delay to one day is allowed",
            );
        }
        if !(1.0..=100.0).contains(&multiplier) {
            return refuse("the retry multiplier", multiplier.to_string(), "1 to 100 is allowed");
        }
        if !(0.0..=1.0).contains(&jitter) {
            return refuse("the retry jitter", jitter.to_string(), "a share from 0 to 1 is allowed");
        }
        Ok(Self { initial, max, multiplier, jitter, max_attempts: Some(4) })
    }

    /// The most tries, the first one included; 4 by default, `None` for no limit.
    pub fn max_attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.max_attempts = attempts.into();
        self
    }

    /// A policy with a single try.
    pub fn never() -> Self {
        Self::default().max_attempts(1)
    }

    /// The longest delay. A client does not wait longer, even if the service asks for it.
    pub fn max_delay(&self) -> Duration {
        self.max
    }

    /// Begins the sequence of delays.
    pub fn schedule(&self) -> Schedule {
        let mut backoff = ExponentialBackoff {
            initial_interval: self.initial,
            max_interval: self.max,
            multiplier: self.multiplier,
            // The crate applies its jitter after the maximum, and its generator cannot be seeded.
            randomization_factor: 0.0,
            // The crate would measure it with a clock that ignores tokio's.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        backoff.reset();
        Schedule { backoff, jitter: self.jitter, max_attempts: self.max_attempts, attempts: 0 }
    }
}

impl Default for RetryPolicy {
    /// 200 ms, doubled up to 10 s, with a jitter of 0.5 and four tries.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(10),
            multiplier: 2.0,
            jitter: 0.5,
            max_attempts: Some(4),
        }
    }
}

/// The delays of one operation, in order.
#[derive(Debug)]
pub struct Schedule {
    backoff: ExponentialBackoff,
    jitter: f64,
    max_attempts: Option<u32>,
    attempts: u32,
}

impl Schedule {
    /// The delay after a failed try; `None` after the last try.
    pub fn next_delay(&mut self) -> Option<Duration> {
        self.attempts = self.attempts.saturating_add(1);
        if self.max_attempts.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let delay = self.backoff.next_backoff()?;
        Some(delay.mul_f64(1.0 - self.jitter * fastrand::f64()))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn policy(jitter: f64) -> RetryPolicy {
        RetryPolicy::try_new(Duration::from_millis(100), Duration::from_secs(1), 2.0, jitter).unwrap()
    }

    #[test]
    fn delays_double_up_to_the_longest_and_end_with_the_tries() {
        let mut schedule = policy(0.0).max_attempts(7).schedule();
        let delays: Vec<_> = std::iter::from_fn(|| schedule.next_delay()).map(|delay| delay.as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        schedule.reset();
        assert_eq!(schedule.next_delay(), Some(Duration::from_millis(100)));
    }

    #[test]
    fn without_a_bound_it_never_gives_up() {
        let mut schedule = policy(0.0).max_attempts(None).schedule();
        assert!((0..10_000).all(|_| schedule.next_delay().is_some()));
        assert_eq!(RetryPolicy::never().schedule().next_delay(), None);
    }

    #[test]
    fn a_policy_that_cannot_work_is_refused() {
        let ms = Duration::from_millis;
        assert!(RetryPolicy::try_new(ms(0), ms(1), 2.0, 0.5).is_err());
        assert!(RetryPolicy::try_new(ms(2), ms(1), 2.0, 0.5).is_err());
        assert!(RetryPolicy::try_new(ms(1), ms(2), 0.5, 0.5).is_err());
        assert!(RetryPolicy::try_new(ms(1), ms(2), f64::NAN, 0.5).is_err());
        let error = RetryPolicy::try_new(ms(1), ms(2), 2.0, 1.5).unwrap_err();
        assert_eq!(error.to_string(), "the retry jitter is 1.5: a share from 0 to 1 is allowed");
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_its_bounds(jitter in 0.0..=1.0f64, tries in 1u32..40) {
            let mut schedule = policy(jitter).max_attempts(None).schedule();
            for attempt in 0..tries {
                let full = Duration::from_millis(100 * 2u64.pow(attempt.min(20))).min(Duration::from_secs(1));
                let delay = schedule.next_delay().unwrap();
                prop_assert!(delay <= full && delay >= full.mul_f64(1.0 - jitter) - Duration::from_nanos(10));
            }
        }
    }
}
