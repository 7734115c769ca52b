//! [`LruMap`]: a bounded map that forgets its least recently used entry.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// A map with a bounded number of entries. Each step takes time logarithmic in the number of entries.
#[derive(Debug)]
pub(crate) struct LruMap<K, V> {
    /// The maximum number of entries.
    capacity: usize,
    entries: HashMap<K, (u64, V)>,
    /// The keys in the order of their last use.
    order: BTreeMap<u64, K>,
    /// The number of uses so far. An entry is ordered by the number of its last one.
    uses: u64,
}

impl<K: Clone + Eq + Hash, V: Default> LruMap<K, V> {
    /// An empty map of at most `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// The value of a key, inserted as the default if the key is new. A new key in a full map displaces another one.
    pub(crate) fn value(&mut self, key: K) -> &mut V {
        self.uses += 1;
        if let Some((use_before, _)) = self.entries.get(&key) {
            self.order.remove(use_before);
        } else if self.entries.len() >= self.capacity
            && let Some((_, forgotten)) = self.order.pop_first()
        {
            self.entries.remove(&forgotten);
        }
        self.order.insert(self.uses, key.clone());
        let (latest, value) = self.entries.entry(key).or_default();
        *latest = self.uses;
        value
    }
}

#[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "the dashboard shows and changes them"))]
impl<K: Clone + Eq + Hash, V> LruMap<K, V> {
    /// The value of a key. Looking is no use.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// Removes a key, and returns its value.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (latest, value) = self.entries.remove(key)?;
        self.order.remove(&latest);
        Some(value)
    }

    /// All keys with their values, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let mut recent: LruMap<&str, u32> = LruMap::new(3);
        for key in ["a", "b", "c", "a", "d"] {
            *recent.value(key) += 1;
        }
        assert_eq!(*recent.value("a"), 2, "it was used after b");
        assert_eq!(*recent.value("b"), 0, "it was forgotten for d");
        assert_eq!((recent.entries.len(), recent.order.len()), (3, 3));
        assert_eq!((recent.get(&"a"), recent.get(&"c"), recent.iter().count()), (Some(&2), None, 3));
        assert_eq!((recent.remove(&"a"), recent.remove(&"a")), (Some(2), None));
        assert_eq!((recent.entries.len(), recent.order.len()), (2, 2));
    }
}
