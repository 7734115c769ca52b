//! Whether a failed try is followed by another, and when: pure in the failure and the time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    code::Class,
    error::{Error, Progress},
};
use crate::retry::{RetryPolicy, Schedule};

/// How long a call waits for a queue or group to be ready after its creation (API reference 5.1.1: 1-3 s).
pub(super) const CREATION_PATIENCE: Duration = Duration::from_secs(10);
/// How often it asks meanwhile.
const CREATION_PAUSE: Duration = Duration::from_millis(500);
/// The shortest wait after throttling.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// What repeating a call that may have taken effect would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nothing more than calling once: reads, and writes that say the same again.
    Harmless,
    /// Something that the caller can live with, or tell from the first call having worked.
    Allowed,
    /// Lease more messages: only after an answer that says that none were handed out.
    Leases,
    /// Store the messages twice: only if the service surely did not take them.
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
    /// Under a deadline the number of tries is not bounded.
    pub(super) fn new(repeat: Repeat, policy: &RetryPolicy, deadline: Option<Instant>, now: Instant) -> Self {
        let schedule = match deadline {
            Some(_) => policy.clone().max_attempts(None).schedule(),
            None => policy.schedule(),
        };
        Self { repeat, schedule, longest: policy.longest(), started: now, deadline, unsure: false }
    }

    /// Hears of a failed try. `young` is when the queue or group was created by this client, if it was of late.
    ///
    /// # Errors
    /// Gives the error back when it is final, marked if an earlier try may have taken effect.
    pub(super) fn failed(&mut self, error: Error, now: Instant, young: Option<Instant>) -> Result<Duration, Error> {
        let progress = error.progress();
        self.unsure |= progress != Progress::None && self.repeat != Repeat::Harmless;
        match self.pause(&error, progress, now, young) {
            Some(pause) if self.deadline.is_none_or(|deadline| now + pause < deadline) => Ok(pause),
            _ => Err(if self.unsure { error.into_unsure() } else { error }),
        }
    }

    fn pause(&mut self, error: &Error, progress: Progress, now: Instant, young: Option<Instant>) -> Option<Duration> {
        let ready_at = match error.class() {
            Some(Class::BeingCreated) => Some(self.started + CREATION_PATIENCE),
            Some(Class::NotFound) => young.map(|created| created + CREATION_PATIENCE),
            _ => None,
        };
        if let Some(ready_at) = ready_at {
            return (now + CREATION_PAUSE < ready_at).then_some(CREATION_PAUSE);
        }
        if !error.is_retryable() || !self.may_repeat(progress) {
            return None;
        }
        if let Some(wait) = error.wait() {
            // Worth it only for a caller that said how long it has.
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
