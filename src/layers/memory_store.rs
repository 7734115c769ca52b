//! A store of keys in this process, for [`Deduplicate`](super::Deduplicate).

use std::{
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::deduplicate::{Claim, KeyStore};
use crate::worker::Memory;

/// Keys in memory: bounded, gone with the process. Clones share it.
///
/// When it is full, the key that was noted first is forgotten.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Mutex<Memory<String, Claim>>>);

impl MemoryStore {
    /// Remembers up to `capacity` keys, at least one.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Memory::new(capacity))))
    }

    fn lock(&self) -> MutexGuard<'_, Memory<String, Claim>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        let mut keys = self.lock();
        if let Some(claim) = keys.recall(key) {
            return Ok(*claim);
        }
        keys.note(key.to_owned(), Claim::InProgress, lease);
        Ok(Claim::New)
    }

    async fn done(&self, key: &str, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.lock().note(key.to_owned(), Claim::Done, keep);
        Ok(())
    }

    async fn release(&self, key: &str) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.lock().take(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_key_is_claimed_once_and_known_for_a_while_after_success() {
        let store = MemoryStore::new(10);
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::New);
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::InProgress);
        store.release("a").await.unwrap();
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::New);
        tokio::time::advance(SECOND).await;
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::New, "the claimer may have died");
        store.done("a", SECOND * 10).await.unwrap();
        tokio::time::advance(SECOND * 9).await;
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::Done);
        tokio::time::advance(SECOND).await;
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::New);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_forgets_the_oldest() {
        let store = MemoryStore::new(3);
        for round in 0..50 {
            for key in ["a", "b", "c", "d"] {
                store.claim(key, SECOND).await.unwrap();
                store.done(key, SECOND * (round + 2)).await.unwrap();
            }
        }
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::New);
        assert_eq!(store.claim("d", SECOND).await.unwrap(), Claim::Done);
        let keys = store.lock();
        let (known, lines) = keys.size();
        assert!(known <= 3 && lines <= 6, "{keys:?}");
    }
}
