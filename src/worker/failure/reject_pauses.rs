//! [`RejectPauses`]: how long rejected messages wait that are redelivered because their queue has no dead letters, and
//! how often the worker warns about them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity},
};

/// The pause before a rejected message is redelivered for the first time; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, as long as the longest lease.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// How long a rejected message is remembered.
const REJECT_TTL: Duration = Duration::from_secs(3600);
/// The minimum time between two warnings of a worker.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// The number of rejects to assume for a message that has no identity: an average one.
const ASSUMED_REJECTS: u32 = 4;

/// The rejected messages of a worker.
#[derive(Debug)]
pub(crate) struct RejectPauses(Mutex<PauseState>);

#[derive(Debug)]
struct PauseState {
    /// How often each message was rejected.
    counts: TtlMap<Identity, u32>,
    warned: Option<Instant>,
    /// Messages that were rejected since the last warning.
    unreported: u64,
}

impl RejectPauses {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(PauseState { counts: TtlMap::new(CAPACITY), warned: None, unreported: 0 }))
    }

    /// Records a rejected message that will be redelivered, and returns how long its redelivery should wait. `attempt`
    /// is the service's count.
    pub(crate) fn record(&self, identity: Option<Identity>, attempt: Option<u32>) -> Duration {
        let mut state = self.lock();
        let times = match identity {
            None => attempt.unwrap_or(ASSUMED_REJECTS),
            Some(identity) => {
                let seen = state.counts.get(&identity).copied().unwrap_or(0).saturating_add(1);
                let times = seen.max(attempt.unwrap_or(1));
                state.counts.insert(identity, times, REJECT_TTL);
                times
            }
        };
        FIRST_PAUSE.saturating_mul(2u32.saturating_pow(times.saturating_sub(1))).min(MAX_PAUSE)
    }

    /// The number of messages to warn about, if a warning is due.
    pub(crate) fn due_warning(&self) -> Option<u64> {
        let (mut state, now) = (self.lock(), Instant::now());
        state.unreported += 1;
        if state.warned.is_some_and(|warned| now - warned < WARNING_INTERVAL) {
            return None;
        }
        state.warned = Some(now);
        Some(std::mem::take(&mut state.unreported))
    }

    fn lock(&self) -> MutexGuard<'_, PauseState> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_of_a_message_grows_and_is_bounded() {
        let reject_pauses = RejectPauses::new();
        let of = |place, attempt| reject_pauses.record(Some(Identity::Place(place, None)), attempt).as_secs();
        assert_eq!([(); 4].map(|()| of(1, None)), [1, 2, 4, 8]);
        assert_eq!(of(2, Some(1)), 1, "another message");
        assert_eq!(of(3, Some(5)), 16, "other workers have rejected it too");
        assert_eq!(reject_pauses.record(None, Some(u32::MAX)), MAX_PAUSE);
        assert_eq!(reject_pauses.record(None, None), Duration::from_secs(8));
    }

    #[tokio::test(start_paused = true)]
    async fn one_warning_is_due_a_minute() {
        let reject_pauses = RejectPauses::new();
        assert_eq!([(); 3].map(|()| reject_pauses.due_warning()), [Some(1), None, None]);
        tokio::time::advance(WARNING_INTERVAL).await;
        assert_eq!([(); 2].map(|()| reject_pauses.due_warning()), [Some(3), None]);
    }
}
