//! [`TtlMap`]: a table with a capacity, whose entries expire.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

use crate::later::after;

/// A table of a bounded weight. Each entry has its own time to live. An entry weighs one unless another weight is given.
/// When the table is too heavy, the entries that were inserted first make room; the newest one always stays.
#[derive(Debug)]
pub struct TtlMap<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The keys in the order of insertion. An entry that was inserted again has an outdated line here.
    order: VecDeque<(Instant, K)>,
    /// The sum of the weights of the entries.
    weight: usize,
    /// The maximum of that sum.
    capacity: usize,
}

#[derive(Debug)]
struct Entry<V> {
    expires: Instant,
    weight: usize,
    value: V,
}

impl<K: Clone + Eq + Hash, V> TtlMap<K, V> {
    /// An empty table of this capacity, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), weight: 0, capacity: capacity.max(1) }
    }

    /// Inserts an entry that expires after `ttl`, and replaces an entry with the same key.
    pub fn insert(&mut self, key: K, value: V, ttl: Duration) {
        self.insert_weighed(key, value, ttl, 1);
    }

    /// The same for an entry of another weight.
    pub fn insert_weighed(&mut self, key: K, value: V, ttl: Duration, weight: usize) {
        let now = Instant::now();
        let expires = after(now, ttl);
        self.order.push_back((expires, key.clone()));
        self.weight += weight;
        if let Some(previous) = self.entries.insert(key, Entry { expires, weight, value }) {
            self.weight -= previous.weight;
        }
        while let Some((expires, oldest)) = self.order.front() {
            let full = self.weight > self.capacity || self.order.len() > self.capacity * 2;
            if (!full && now < *expires) || self.order.len() == 1 {
                break;
            }
            if self.entries.get(oldest).is_some_and(|entry| entry.expires == *expires) {
                self.weight -= self.entries.remove(oldest).map_or(0, |entry| entry.weight);
            }
            self.order.pop_front();
        }
    }

    /// Whether there are no entries. Nothing has to be hashed to find out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key, unless it has expired.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).filter(|entry| Instant::now() < entry.expires).map(|entry| &entry.value)
    }

    /// Removes an entry, and returns its value unless it has expired.
    pub fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        (Instant::now() < entry.expires).then_some(entry.value)
    }

    /// How many entries there are, and how many lines of their order.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_entry_expires_after_its_time() {
        let mut map = TtlMap::new(10);
        map.insert(7, "seven", TTL);
        assert_eq!(map.get(&7), Some(&"seven"));
        tokio::time::advance(TTL / 2).await;
        map.insert(7, "again", TTL);
        tokio::time::advance(TTL / 2).await;
        map.insert(8, "eight", TTL);
        assert_eq!(map.get(&7), Some(&"again"), "the outdated line removes nothing newer");
        tokio::time::advance(TTL / 2).await;
        assert_eq!(map.remove(&7), None, "expired");
        assert_eq!(map.remove(&8), Some("eight"));
        assert_eq!(map.remove(&8), None, "removed");
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_expired_entries_are_dropped() {
        const CAPACITY: usize = 1_000;
        let mut map = TtlMap::new(CAPACITY);
        for key in 0..=CAPACITY {
            map.insert(key, (), TTL);
        }
        assert_eq!((map.get(&0), map.get(&1)), (None, Some(&())));
        for _ in 0..3 * CAPACITY {
            map.insert(1, (), TTL);
        }
        let (entries, lines) = map.size();
        assert!(entries <= CAPACITY && lines <= 2 * CAPACITY, "{entries} entries, {lines} lines");
        tokio::time::advance(TTL).await;
        map.insert(1, (), TTL);
        assert_eq!(map.size(), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn heavy_entries_make_the_oldest_go_and_the_newest_always_stays() {
        let mut map = TtlMap::new(10);
        for (key, weight) in [("a", 6), ("b", 6), ("c", 1)] {
            map.insert_weighed(key, (), TTL, weight);
        }
        assert_eq!(["a", "b", "c"].map(|key| map.get(key).is_some()), [false, true, true]);
        map.remove("b");
        map.insert_weighed("d", (), TTL, 9);
        assert_eq!(["c", "d"].map(|key| map.get(key).is_some()), [true, true], "removed entries weigh nothing");
        map.insert_weighed("e", (), TTL, 99);
        assert_eq!(["c", "d", "e"].map(|key| map.get(key).is_some()), [false, false, true]);
    }
}
