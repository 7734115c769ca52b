//! [`Slots`]: the table that a message is in. Each chunk table holds the messages of six hours, so that expired messages are deleted
//! by dropping a table. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::StreamId;

/// How many milliseconds of messages a chunk table holds.
pub(crate) const SLOT_MS: i64 = 6 * 3600 * 1000;

/// The number of a chunk table: six-hour periods since 1970. Numbers of a shard never fall, whatever its owners' clocks say.
pub(crate) type Slot = u32;

/// The slot of a time.
pub(crate) fn slot_of(time_ms: i64) -> Slot {
    Slot::try_from(time_ms.div_euclid(SLOT_MS)).unwrap_or(0)
}

/// The name of the table of a shard's slot. Each shard has its own tables, because only its owner knows which are unused.
pub(crate) fn table(shard: i32, slot: Slot) -> String {
    format!("chunk_{shard}_{slot}")
}

/// The slot of a shard's table with this name.
pub(crate) fn slot_of_table(shard: i32, name: &str) -> Option<Slot> {
    let (of, slot) = name.strip_prefix("chunk_")?.split_once('_')?;
    slot.parse().ok().filter(|_| of.parse() == Ok(shard))
}

/// The chunk tables that exist, and which of them each stream uses.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// The slot that commits write to.
    pub(crate) current: Slot,
    /// The tables that exist.
    pub(crate) tables: BTreeSet<Slot>,
    /// For each stream its first place in each slot. Places and slots grow together.
    streams: BTreeMap<StreamId, BTreeMap<u64, Slot>>,
}

impl Slots {
    /// The slot for messages that enter at `time_ms`. It never goes back, so that the places of a stream and its slots grow together.
    pub(crate) fn for_time(&self, time_ms: Option<i64>) -> Slot {
        time_ms.map_or(self.current, |time_ms| self.current.max(slot_of(time_ms)))
    }

    /// Notes that a message has entered at a time, if any has.
    pub(crate) fn reached(&mut self, time_ms: Option<i64>) {
        self.current = self.for_time(time_ms);
    }

    /// Notes that a stream has messages in a slot, from `first` on.
    pub(crate) fn note(&mut self, stream: StreamId, first: u64, slot: Slot) {
        self.current = self.current.max(slot);
        let slots = self.streams.entry(stream).or_default();
        // Only the first place in a slot is kept, so the map grows with the tables and not with the messages.
        if slots.last_key_value().is_none_or(|(_, last)| *last < slot) {
            slots.insert(first, slot);
        }
    }

    /// The slots that have messages of a stream from a place on, in order.
    pub(crate) fn from(&self, stream: StreamId, place: u64) -> Vec<Slot> {
        let Some(slots) = self.streams.get(&stream) else { return Vec::new() };
        // The place itself is in the last slot that begins at or below it.
        let begin = slots.range(..=place).next_back().map_or(0, |(first, _)| *first);
        slots.range(begin..).map(|(_, slot)| *slot).collect()
    }

    /// The slot that has a place of a stream, if any has.
    pub(crate) fn of(&self, stream: StreamId, place: u64) -> Option<Slot> {
        self.streams.get(&stream)?.range(..=place).next_back().map(|(_, slot)| *slot)
    }

    /// Forgets the slots whose messages of a stream are all below a place. Returns whether there were any.
    pub(crate) fn expire(&mut self, stream: StreamId, low: u64, next: u64) -> bool {
        let Some(slots) = self.streams.get_mut(&stream) else { return false };
        if low >= next {
            let had = !slots.is_empty();
            slots.clear();
            return had;
        }
        let Some((begin, _)) = slots.range(..=low).next_back() else { return false };
        let kept = slots.split_off(&begin.clone());
        let had = !slots.is_empty();
        *slots = kept;
        had
    }

    /// Forgets streams that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(StreamId) -> bool) {
        self.streams.retain(|stream, _| is_there(*stream));
    }

    /// The tables in which no message is left.
    pub(crate) fn unused(&self) -> Vec<Slot> {
        // The current table is never dropped, even when it is empty, because a commit may be on its way to it.
        let used: BTreeSet<Slot> = self.streams.values().flat_map(BTreeMap::values).copied().collect();
        self.tables.range(..self.current).filter(|slot| !used.contains(slot)).copied().collect()
    }

    /// The tables that commits will need next and that do not exist.
    pub(crate) fn missing(&self) -> Vec<Slot> {
        // The next table is created ahead, so that no commit has to wait for one when the slot changes.
        [self.current, self.current + 1].into_iter().filter(|slot| !self.tables.contains(slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(1);

    fn with(places: &[(u64, Slot)]) -> Slots {
        let mut slots = Slots { tables: places.iter().map(|(_, slot)| *slot).collect(), ..Slots::default() };
        places.iter().for_each(|(first, slot)| slots.note(STREAM, *first, *slot));
        slots
    }

    #[test]
    fn a_clock_that_goes_back_changes_no_slot() {
        let slots = with(&[(1, 8)]);
        assert_eq!(slots.for_time(Some(3 * SLOT_MS)), 8);
        assert_eq!(slots.for_time(Some(9 * SLOT_MS)), 9);
        assert_eq!(slots.for_time(None), 8);
    }

    #[test]
    fn places_are_looked_for_in_the_slots_that_have_them() {
        let slots = with(&[(1, 8), (10, 8), (20, 9), (30, 11)]);
        assert_eq!(slots.from(STREAM, 1), [8, 9, 11]);
        assert_eq!(slots.from(STREAM, 19), [8, 9, 11]);
        assert_eq!(slots.from(STREAM, 20), [9, 11]);
        assert_eq!(slots.of(STREAM, 29), Some(9));
        assert!(slots.from(StreamId(2), 1).is_empty());
    }

    #[test]
    fn a_table_without_messages_is_dropped_and_the_current_one_never() {
        let mut slots = with(&[(1, 8), (20, 9), (30, 11)]);
        assert!(!slots.expire(STREAM, 19, 40));
        assert!(slots.unused().is_empty());
        assert!(slots.expire(STREAM, 20, 40));
        assert_eq!(slots.unused(), [8]);
        assert!(slots.expire(STREAM, 40, 40));
        assert_eq!(slots.unused(), [8, 9]);
        assert_eq!(slots.missing(), [12]);
    }

    #[test]
    fn table_names_are_read_back() {
        assert_eq!(slot_of_table(1, &table(1, 7)), Some(7));
        assert_eq!(slot_of_table(2, &table(1, 7)), None, "the table of another shard");
        assert_eq!(slot_of_table(1, "chunk_1_x"), None);
        assert_eq!(slot_of_table(1, "journal"), None);
    }
}
