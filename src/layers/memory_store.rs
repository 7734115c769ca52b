//! [`MemoryStore`]: a store of keys in this process, for [`Deduplicate`](super::Deduplicate).

use std::{
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::deduplicate::{Claim, KeyStore, Token};
use crate::ttl_map::TtlMap;

/// A bounded store of keys in memory. Clones share it; it ends with the process.
///
/// When it is full, it forgets the oldest key.
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::layers::{Claim, KeyStore, MemoryStore};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let (store, minute) = (MemoryStore::new(10_000), Duration::from_secs(60));
///     let Claim::New(token) = store.claim("order-7", minute).await? else { panic!("the store is empty") };
///     assert_eq!(store.claim("order-7", minute).await?, Claim::InProgress);
///     store.done(&token, minute).await?;
///     assert_eq!(store.claim("order-7", minute).await?, Claim::Done);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Mutex<TtlMap<String, Known>>>);

/// The state of a key.
#[derive(Debug)]
enum Known {
    /// Claimed, with the token of the claim.
    Claimed(Token),
    Done,
}

impl MemoryStore {
    /// A store of at most `capacity` keys, and at least one.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(TtlMap::new(capacity))))
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<String, Known>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        let mut keys = self.lock();
        Ok(match keys.get(key) {
            Some(Known::Claimed(_)) => Claim::InProgress,
            Some(Known::Done) => Claim::Done,
            None => {
                let token = Token::random(key);
                keys.insert(key.to_owned(), Known::Claimed(token.clone()), lease);
                Claim::New(token)
            }
        })
    }

    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.lock().insert(token.key().to_owned(), Known::Done, keep);
        Ok(())
    }

    async fn release(&self, token: &Token) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut keys = self.lock();
        if matches!(keys.get(token.key()), Some(Known::Claimed(owner)) if owner == token) {
            keys.remove(token.key());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn claimed(store: &MemoryStore, key: &str) -> Token {
        match store.claim(key, SECOND).await.unwrap() {
            Claim::New(token) => token,
            other => panic!("{key} is taken: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_claimed_once_and_known_for_a_while_after_success() {
        let store = MemoryStore::new(10);
        let first = claimed(&store, "a").await;
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::InProgress);
        store.release(&first).await.unwrap();
        claimed(&store, "a").await;
        tokio::time::advance(SECOND).await;
        let last = claimed(&store, "a").await; // the claimer may have died
        store.done(&last, SECOND * 10).await.unwrap();
        tokio::time::advance(SECOND * 9).await;
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::Done);
        tokio::time::advance(SECOND).await;
        claimed(&store, "a").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_release_frees_no_claim_but_its_own() {
        let store = MemoryStore::new(10);
        let late = claimed(&store, "a").await;
        tokio::time::advance(SECOND).await;
        let current = claimed(&store, "a").await;
        assert_ne!(late, current);
        store.release(&late).await.unwrap();
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::InProgress, "the second claim still has it");
        store.release(&current).await.unwrap();
        let third = claimed(&store, "a").await;
        store.done(&third, SECOND * 10).await.unwrap();
        for token in [&late, &current, &third] {
            store.release(token).await.unwrap();
        }
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::Done, "finished work stays finished");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_was_done_late_is_done_whoever_has_the_key() {
        let store = MemoryStore::new(10);
        let late = claimed(&store, "a").await;
        tokio::time::advance(SECOND).await;
        let current = claimed(&store, "a").await;
        store.done(&late, SECOND * 10).await.unwrap();
        store.release(&current).await.unwrap();
        assert_eq!(store.claim("a", SECOND).await.unwrap(), Claim::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_forgets_the_oldest() {
        let store = MemoryStore::new(3);
        for round in 0..50 {
            for key in ["a", "b", "c", "d"] {
                store.claim(key, SECOND).await.unwrap();
                store.done(&Token::random(key), SECOND * (round + 2)).await.unwrap();
            }
        }
        claimed(&store, "a").await;
        assert_eq!(store.claim("d", SECOND).await.unwrap(), Claim::Done);
        let keys = store.lock();
        let (known, lines) = keys.size();
        assert!(known <= 3 && lines <= 6, "{keys:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_can_be_kept_for_ever() {
        let store = MemoryStore::new(3);
        let token = claimed(&store, "a").await;
        store.done(&token, Duration::MAX).await.unwrap();
        tokio::time::advance(SECOND * 86_400 * 365).await;
        assert_eq!(store.claim("a", Duration::MAX).await.unwrap(), Claim::Done);
    }
}
