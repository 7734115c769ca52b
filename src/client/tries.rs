//! [`Tries`]: decides whether and when a failed try is repeated. Pure: depends on the failure and the time alone.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    code::Class,
    error::{Error, Progress},
};
use crate::retry::{RetryPolicy, Schedule};

/// How long calls retry while a new queue or group is not ready (API reference 5.1.1: 1-3 s).
pub(super) const CREATION_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay between these retries.
const CREATION_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The shortest wait after throttling.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// The effect of repeating a call that may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// No effect: reads and idempotent writes.
    Harmless,
    /// An effect that the caller accepts or can detect.
    Allowed,
    /// More messages are leased. Repeated only if the answer says that none were.
    Leases,
    /// The messages are stored twice. Repeated only if the service did not receive them.
    Doubles,
}

/// The tries of one call.
#[derive(Debug)]
pub(super) struct Tries {
    repeat: Repeat,
    schedule: Schedule,
    longest: Duration,
    started: Instant,
    deadline: Option<Instant>,
    /// Whether a try may have taken effect.
    unsure: bool,
}

impl Tries {
    /// With a deadline, the number of tries is not bounded.
    pub(super) fn new(repeat: Repeat, policy: &RetryPolicy, deadline: Option<Instant>, now: Instant) -> Self {
        let schedule = match deadline {
            Some(_) => policy.clone().max_attempts(None).schedule(),
            None => policy.schedule(),
        };
        Self { repeat, schedule, longest: policy.max_delay(), started: now, deadline, unsure: false }
    }

    /// Records a failed try and returns the delay before the next one. `created` is when this client created the queue
    /// or group, if that was recently.
    ///
    /// # Errors
    /// Returns the error if it is final, marked if an earlier try may have taken effect.
    pub(super) fn failed(&mut self, error: Error, now: Instant, created: Option<Instant>) -> Result<Duration, Error> {
        let progress = error.progress();
        self.unsure |= progress != Progress::None && self.repeat != Repeat::Harmless;
        match self.pause(&error, progress, now, created) {
            Some(pause) if self.deadline.is_none_or(|deadline| now + pause < deadline) => Ok(pause),
            _ => Err(if self.unsure { error.into_unsure() } else { error }),
        }
    }

    fn pause(&mut self, error: &Error, progress: Progress, now: Instant, created: Option<Instant>) -> Option<Duration> {
        let ready_at = match error.class() {
            Some(Class::BeingCreated) => Some(self.started + CREATION_TIMEOUT),
            Some(Class::NotFound) => created.map(|created| created + CREATION_TIMEOUT),
            _ => None,
        };
        if let Some(ready_at) = ready_at {
            return (now + CREATION_RETRY_DELAY < ready_at).then_some(CREATION_RETRY_DELAY);
        }
        if !error.is_retryable() || !self.may_repeat(progress) {
            return None;
        }
        if let Some(wait) = error.wait() {
            // Only a caller with a deadline can wait this long.
            return self.deadline.map(|_| wait);
        }
        let asked = error.retry_after().unwrap_or_default();
        if asked > self.longest {
            return None;
        }
        let floor = if error.is_throttled() { THROTTLE_PAUSE.min(self.longest) } else { Duration::ZERO };
        Some(self.schedule.next_delay()?.max(asked).max(floor))
    }

    fn may_repeat(&self, progress: Progress) -> bool {
        match self.repeat {
            Repeat::Harmless | Repeat::Allowed => true,
            Repeat::Leases => progress != Progress::Unknown,
            Repeat::Doubles => progress == Progress::None,
        }
    }
}

#[cfg(test)]
mod tests;
