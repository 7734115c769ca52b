//! What is known of single messages for a while: a bounded table, keyed by what is one message's own.
//!
//! Safe only by a key that is one message's own: the place in its queue that our server sends beside a message, or an attribute
//! that the user vouches for. Two messages with equal bodies are two messages, so nothing is known of a message without such a key.

use std::{
    borrow::Borrow,
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

use crate::{later::after, message::ReceivedMessage};

/// How many messages a worker remembers.
pub(crate) const CAPACITY: usize = 10_000;

/// What tells one message from all others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity {
    /// Its place in the stream and when it entered it, as the server gave them: after a restore from a backup the places of the
    /// lost messages are given to others.
    Place(u64, Option<i64>),
    /// The value of the attribute that the user named.
    Unique(String),
}

impl Identity {
    /// The identity of a message, if it has one. A named attribute goes before the place.
    pub(crate) fn of(message: &ReceivedMessage, unique_attribute: Option<&str>) -> Option<Self> {
        match unique_attribute {
            Some(name) => message.attributes.get(name).map(|value| Self::Unique(value.get().to_owned())),
            None => message.sequence.map(|sequence| Self::Place(sequence, message.entered_ms)),
        }
    }
}

/// Something about each of so many keys, each for a while; when it is full, what was noted first is forgotten.
#[derive(Debug)]
pub struct Memory<K, T> {
    /// Until when it is known.
    entries: HashMap<K, (Instant, T)>,
    /// In the order of their noting; an entry that was noted again has an old line here.
    order: VecDeque<(Instant, K)>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, T> Memory<K, T> {
    /// Remembers up to `capacity` keys, at least one.
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Notes something for so long, in place of what was noted before.
    pub fn note(&mut self, key: K, what: T, keep: Duration) {
        let now = Instant::now();
        let until = after(now, keep);
        self.order.push_back((until, key.clone()));
        self.entries.insert(key, (until, what));
        while let Some((until, oldest)) = self.order.front() {
            let full = self.entries.len() > self.capacity || self.order.len() > self.capacity * 2;
            if !full && now < *until {
                break;
            }
            if self.entries.get(oldest).is_some_and(|(latest, _)| latest == until) {
                self.entries.remove(oldest);
            }
            self.order.pop_front();
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known.
    pub fn recall<Q>(&self, key: &Q) -> Option<&T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, what)| what)
    }

    /// What was known, forgotten with this.
    pub fn take<Q>(&mut self, key: &Q) -> Option<T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if self.entries.is_empty() {
            return None;
        }
        let (until, what) = self.entries.remove(key)?;
        (Instant::now() < until).then_some(what)
    }

    /// How many keys are known, and how many lines there are of them.
    #[cfg(test)]
    pub fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    fn at(place: u64) -> Identity {
        Identity::Place(place, Some(5))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_is_known_for_a_while() {
        let mut memory = Memory::new(CAPACITY);
        memory.note(at(7), "seven", KEEP);
        assert_eq!(memory.recall(&at(7)), Some(&"seven"));
        assert_eq!(memory.recall(&Identity::Place(7, Some(6))), None, "another message at the same place");
        assert_eq!(memory.recall(&Identity::Unique("7".to_owned())), None);
        tokio::time::advance(KEEP / 2).await;
        memory.note(at(7), "again", KEEP);
        tokio::time::advance(KEEP / 2).await;
        memory.note(at(8), "eight", KEEP);
        assert_eq!(memory.recall(&at(7)), Some(&"again"), "the old line takes nothing newer with it");
        tokio::time::advance(KEEP / 2).await;
        assert_eq!(memory.take(&at(7)), None, "it is too old");
        assert_eq!(memory.take(&at(8)), Some("eight"));
        assert_eq!(memory.take(&at(8)), None, "it was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let mut memory = Memory::new(CAPACITY);
        for place in 0..=CAPACITY as u64 {
            memory.note(at(place), (), KEEP);
        }
        assert_eq!(memory.recall(&at(0)), None);
        assert_eq!(memory.recall(&at(1)), Some(&()));
        assert_eq!(memory.entries.len(), CAPACITY);
        tokio::time::advance(KEEP).await;
        memory.note(at(1), (), KEEP);
        assert_eq!(memory.entries.len(), 1, "what is too old is gone");
    }
}
