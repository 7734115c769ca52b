//! [`RejectPauses`]: how long rejected messages wait that are redelivered because their queue has no dead letters.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    ttl_map::TtlMap,
    worker::{
        dedup::identity::{CAPACITY, Identity},
        observe::occasionally::Occasionally,
    },
};

/// The pause before a rejected message is redelivered for the first time; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, as long as the longest lease.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// How long a rejected message is remembered.
const REJECT_TTL: Duration = Duration::from_secs(3600);
/// The number of rejects to assume for a message that has no identity: an average one.
const ASSUMED_REJECTS: u32 = 4;

/// The rejected messages of a worker.
#[derive(Debug)]
pub(crate) struct RejectPauses {
    /// How often each message was rejected.
    counts: Mutex<TtlMap<Identity, u32>>,
    warnings: Occasionally,
}

impl RejectPauses {
    pub(crate) fn new() -> Self {
        Self { counts: Mutex::new(TtlMap::new(CAPACITY)), warnings: Occasionally::default() }
    }

    /// Records a rejected message that will be redelivered, and returns how long its redelivery should wait. `attempt`
    /// is the service's count.
    pub(crate) fn record(&self, identity: Option<Identity>, attempt: Option<u32>) -> Duration {
        let mut counts = self.lock();
        let times = match identity {
            None => attempt.unwrap_or(ASSUMED_REJECTS),
            Some(identity) => {
                let seen = counts.get(&identity).copied().unwrap_or(0).saturating_add(1);
                let times = seen.max(attempt.unwrap_or(1));
                counts.insert(identity, times, REJECT_TTL);
                times
            }
        };
        FIRST_PAUSE.saturating_mul(2u32.saturating_pow(times.saturating_sub(1))).min(MAX_PAUSE)
    }

    /// The number of messages to warn about, if a warning is due.
    pub(crate) fn due_warning(&self) -> Option<u64> {
        self.warnings.due()
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, u32>> {
        // No code that can panic runs under this lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
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
}
