//! A store of keys in this process, for [`Deduplicate`](super::Deduplicate).

use std::{
    collections::{HashMap, VecDeque},
    error::Error as StdError,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::deduplicate::{Claim, KeyStore};

/// Keys in memory: bounded, gone with the process. Clones share it.
///
/// When it is full, the key that was noted first is forgotten.
#[derive(Clone, Debug)]
pub struct MemoryStore(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    capacity: usize,
    /// Until when each key is known, and whether its work is done.
    keys: HashMap<String, (Instant, bool)>,
    /// In the order of their noting; a key that was noted again has an old line here.
    order: VecDeque<(Instant, String)>,
}

impl MemoryStore {
    /// Remembers up to `capacity` keys, at least one.
    pub fn new(capacity: usize) -> Self {
        let table = Table { capacity: capacity.max(1), keys: HashMap::new(), order: VecDeque::new() };
        Self(Arc::new(Mutex::new(table)))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn note(&mut self, key: &str, keep: Duration, done: bool) {
        let until = Instant::now() + keep;
        self.keys.insert(key.to_owned(), (until, done));
        self.order.push_back((until, key.to_owned()));
        while self.keys.len() > self.capacity || self.order.len() > self.capacity * 2 {
            let Some((until, oldest)) = self.order.pop_front() else { return };
            if self.keys.get(&oldest).is_some_and(|(latest, _)| *latest == until) {
                self.keys.remove(&oldest);
            }
        }
    }
}

#[async_trait]
impl KeyStore for MemoryStore {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn StdError + Send + Sync>> {
        let mut table = self.lock();
        let known = table.keys.get(key).filter(|(until, _)| *until > Instant::now());
        Ok(match known {
            Some((_, true)) => Claim::Done,
            Some((_, false)) => Claim::InProgress,
            None => {
                table.note(key, lease, false);
                Claim::New
            }
        })
    }

    async fn done(&self, key: &str, keep: Duration) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.lock().note(key, keep, true);
        Ok(())
    }

    async fn release(&self, key: &str) -> Result<(), Box<dyn StdError + Send + Sync>> {
        self.lock().keys.remove(key);
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
        let table = store.lock();
        assert!(table.keys.len() <= 3 && table.order.len() <= 6, "{table:?}");
    }
}
