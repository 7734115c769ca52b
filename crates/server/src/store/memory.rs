//! [`MemoryStore`]: the store without a disk. It keeps messages; everything else is in the broker's state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    histogram::Histogram,
    store::{ReadBatch, ReadLimit, Record, Store, StoreError, StoredMessage, StreamId, up_to_time},
};

type MessageKey = (StreamId, u64);

/// Messages in memory, until the process ends.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<Messages>);

#[derive(Debug, Default)]
struct Messages {
    by_place: BTreeMap<MessageKey, Arc<StoredMessage>>,
    by_due: BTreeMap<(StreamId, i64, u64), Arc<StoredMessage>>,
    /// The streams of each owner, to delete them with it.
    streams: BTreeMap<String, Vec<StreamId>>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::QueueCreated(queue) => self.own(queue.id.as_str(), [queue.stream(), queue.delay_queue()]),
            Record::GroupCreated(group) => {
                self.own(group.queue.as_str(), [group.dead_letters()]);
                self.own(group.id.as_str(), [group.dead_letters()]);
            }
            Record::QueueDeleted(queue) => self.disown(queue.as_str()),
            Record::GroupDeleted(_, group) => self.disown(group.as_str()),
            Record::Appended(stream, message) => {
                self.by_place.insert((*stream, message.seq), message.clone());
            }
            Record::Delayed(delay_queue, message) => {
                self.by_place.insert((*delay_queue, message.seq), message.clone());
                self.by_due.insert((*delay_queue, message.entered_ms, message.seq), message.clone());
            }
            Record::DelayEnded(delay_queue, due, seq) => {
                self.by_place.remove(&(*delay_queue, *seq));
                self.by_due.remove(&(*delay_queue, *due, *seq));
            }
            Record::Expired { stream, low, .. } => self.cut(*stream, *low),
            Record::DelayQueuePurged { delay_queue, below } => self.empty(*delay_queue, *below),
            Record::TagsSet(..)
            | Record::RuleFixed(..)
            | Record::GivenUp
            | Record::Settled { .. }
            | Record::RetentionSet(..)
            | Record::KeysSent { .. }
            | Record::QueueChanged(_)
            | Record::ScheduleSet { .. }
            | Record::ScheduleRemoved(..)
            | Record::ScheduleTicked { .. }
            | Record::Purged { .. } => {}
        }
    }

    fn own(&mut self, owner: &str, streams: impl IntoIterator<Item = StreamId>) {
        self.streams.entry(owner.to_owned()).or_default().extend(streams);
    }

    fn disown(&mut self, owner: &str) {
        for stream in self.streams.remove(owner).unwrap_or_default() {
            self.empty(stream, u64::MAX);
        }
    }

    /// Deletes the messages of a delay queue below a sequence number.
    fn empty(&mut self, delay_queue: StreamId, below: u64) {
        self.cut(delay_queue, below);
        let due =
            self.by_due.range((delay_queue, i64::MIN, 0)..=(delay_queue, i64::MAX, u64::MAX)).map(|(key, _)| *key);
        let gone: Vec<_> = due.filter(|(_, _, place)| *place < below).collect();
        gone.iter().for_each(|key| drop(self.by_due.remove(key)));
    }

    /// Deletes the messages of a stream below a sequence number, key by key: splitting and joining the map would cost its whole
    /// length.
    fn cut(&mut self, stream: StreamId, below: u64) {
        let keys: Vec<MessageKey> = self.by_place.range((stream, 0)..(stream, below)).map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| drop(self.by_place.remove(key)));
    }
}

/// Takes messages up to a limit, the first one whatever its size.
fn up_to<'a>(messages: impl Iterator<Item = &'a Arc<StoredMessage>>, limit: ReadLimit) -> ReadBatch {
    let mut found = ReadBatch { until: u64::MAX, ..ReadBatch::default() };
    let mut bytes = 0;
    for message in messages {
        bytes += message.memory_bytes();
        let fits = found.messages.is_empty() || bytes <= limit.bytes;
        if found.messages.len() == limit.messages || !fits {
            found.until = message.seq;
            break;
        }
        found.messages.push(message.clone());
    }
    found
}

impl Store for MemoryStore {
    fn blocks(&self) -> bool {
        false
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut messages = self.lock();
        records.iter().for_each(|record| messages.apply(record));
        Ok(())
    }

    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        Ok(up_to(self.lock().by_place.range((stream, from)..=(stream, u64::MAX)).map(|(_, message)| message), limit))
    }

    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        let messages = self.lock();
        let there = seqs.iter().filter_map(|seq| messages.by_place.get(&(stream, *seq)));
        Ok(up_to(there, ReadLimit { messages: seqs.len(), bytes }))
    }

    fn first_due(
        &self,
        delay_queue: StreamId,
        limit: ReadLimit,
        skip: &BTreeSet<u64>,
    ) -> Result<ReadBatch, StoreError> {
        let messages = self.lock();
        let due = messages.by_due.range((delay_queue, i64::MIN, 0)..=(delay_queue, i64::MAX, u64::MAX));
        Ok(up_to(due.map(|(_, message)| message).filter(|message| !skip.contains(&message.seq)), limit))
    }

    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        let messages = self.lock();
        let range = messages.by_place.range((stream, from)..=(stream, u64::MAX));
        Ok(up_to_time(range.map(|((_, seq), message)| (*seq, message.entered_ms)), count, until_ms))
    }

    fn syncs(&self) -> Histogram {
        Histogram::default()
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn needs_maintenance(&self) -> bool {
        false
    }

    fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn release(&self, _in_order: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
