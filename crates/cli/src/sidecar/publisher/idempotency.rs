//! The outcomes of requests with an `Idempotency-Key`, so that a repeated request sends nothing twice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dms_worker::internal::TtlMap;
use sha2::{Digest, Sha256};

use crate::sidecar::publisher::results::PublishOutcome;

/// How long a request is remembered.
pub(super) const KEY_TTL: Duration = Duration::from_secs(600);
/// The number of messages in remembered requests; a request counts as one more.
const MAX_MESSAGES: usize = 100_000;

/// The outcomes of one request. Locked while it is worked on, so that its repetition waits.
pub(super) type PublishOutcomes = Arc<tokio::sync::Mutex<Vec<PublishOutcome>>>;

/// The memories of a publisher, by queue. A publisher that takes the place of another one shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdempotencyMemories(Arc<Mutex<BTreeMap<String, Arc<IdempotencyMemory>>>>);

impl IdempotencyMemories {
    /// The memory of a queue.
    pub(super) fn of(&self, queue: &str) -> Arc<IdempotencyMemory> {
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memories.entry(queue.to_owned()).or_default().clone()
    }
}

/// The requests of the last minutes.
#[derive(Debug)]
pub(super) struct IdempotencyMemory(Mutex<TtlMap<String, RememberedRequest>>);

#[derive(Debug)]
struct RememberedRequest {
    digest: [u8; 32],
    outcomes: PublishOutcomes,
}

impl Default for IdempotencyMemory {
    fn default() -> Self {
        Self(Mutex::new(TtlMap::new(MAX_MESSAGES)))
    }
}

impl IdempotencyMemory {
    /// The known outcomes of the request with this key; none yet if it is new. `None` when the key stood on another
    /// request.
    pub(super) fn recall(&self, key: &str, body: &[u8], messages: usize) -> Option<PublishOutcomes> {
        let digest: [u8; 32] = Sha256::digest(body).into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = known.get(key) {
            return (kept.digest == digest).then(|| kept.outcomes.clone());
        }
        let outcomes = PublishOutcomes::default();
        known.insert_weighed(
            key.to_owned(),
            RememberedRequest { digest, outcomes: outcomes.clone() },
            KEY_TTL,
            messages + 1,
        );
        Some(outcomes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_remembered_for_a_while_and_stands_for_one_request() {
        let memory = IdempotencyMemory::default();
        let first = memory.recall("k", b"1", 1).unwrap();
        first.lock().await.push(PublishOutcome::Sent { id: None, duplicate: false });
        assert_eq!(memory.recall("k", b"1", 1).unwrap().lock().await.len(), 1);
        assert!(memory.recall("k", b"2", 1).is_none());
        tokio::time::advance(KEY_TTL).await;
        assert_eq!(memory.recall("k", b"2", 1).unwrap().lock().await.len(), 0, "forgotten by now");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_are_forgotten_when_there_are_too_many() {
        let memory = IdempotencyMemory::default();
        for (key, messages) in [("a", 60_000), ("b", 60_000), ("c", 1)] {
            memory
                .recall(key, b"1", messages)
                .unwrap()
                .lock()
                .await
                .push(PublishOutcome::Sent { id: None, duplicate: false });
        }
        let known = async |key: &str| memory.recall(key, b"1", 1).unwrap().lock().await.len();
        assert_eq!((known("b").await, known("c").await, known("a").await), (1, 1, 0));
    }
}
