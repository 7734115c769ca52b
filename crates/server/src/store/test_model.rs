//! The model that every store is compared with: a store in memory, and which places its messages have.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::Arc};

use crate::shared_buffer::BufferSize;
use crate::store::{
    CursorId, FirstPlace, MessageOrigin, QueueRow, ReadLimit, Record, Snapshot, Store, StoredMessage, StreamId,
    memory::MemoryStore,
};
use dms_protocol::{message::DeadLetterInfo, queue::QueueMode};

/// A read without a limit.
pub(crate) const ALL: ReadLimit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };

/// Queues 1 and 3 with their streams, 1 and 3, and delay queues, 2 and 4. The functions below name a queue by its place here.
pub(crate) const STREAMS: [u32; 2] = [1, 3];

pub(crate) fn queue(number: u32) -> QueueRow {
    QueueRow {
        number,
        id: format!("queue-{number}").as_str().into(),
        project: "p".into(),
        name: format!("q{number}"),
        mode: QueueMode::Normal,
        description: String::new(),
        max_consume_count: Some(3),
        retention_hours: None,
        created_ms: 7,
    }
}

/// A message; some have labels, every fourth is a dead letter, and every fifth came from elsewhere.
pub(crate) fn message(seq: u64, size: usize, entered_ms: i64) -> Arc<StoredMessage> {
    let tags: Vec<String> = (0..seq % 3).map(|label| format!("label{label}")).collect();
    let json = format!("{seq}:{}", "x".repeat(size));
    let info = || {
        let mut info = DeadLetterInfo::new("failed");
        (info.error, info.attempts) = (Some(format!("队列 \"{seq}\"")), 3);
        info
    };
    let dead_letter = seq.is_multiple_of(4).then(|| Arc::new(info()));
    let origin = seq.is_multiple_of(5).then(|| MessageOrigin::new("9bf46390-38a2", FirstPlace::DelayQueue, seq, 5));
    Arc::new(StoredMessage {
        seq,
        entered_ms,
        body_bytes: json.len(),
        json: json.into(),
        buffer: BufferSize::default(),
        tags: tags.into(),
        dead_letter,
        origin,
        only_for: seq.is_multiple_of(7).then_some(CursorId(9)),
    })
}

/// The state that a store is to hold.
pub(crate) struct StoreModel {
    pub(crate) memory: MemoryStore,
    pub(crate) low: [u64; 2],
    pub(crate) next: [u64; 2],
    next_delayed: [u64; 2],
}

impl StoreModel {
    pub(crate) fn new() -> Self {
        Self { memory: MemoryStore::default(), low: [1; 2], next: [1; 2], next_delayed: [1; 2] }
    }

    /// Commits to the store and to the model.
    pub(crate) fn commit(&self, store: &dyn Store, records: &[Record]) {
        store.commit(records).unwrap();
        self.memory.commit(records).unwrap();
    }

    /// A message enters the stream.
    pub(crate) fn append(&mut self, queue: usize, size: usize, entered_ms: i64) -> Record {
        let seq = self.next[queue];
        self.next[queue] += 1;
        Record::Appended(StreamId(STREAMS[queue]), message(seq, size, entered_ms))
    }

    /// A message is delayed until `due_ms`.
    pub(crate) fn delay(&mut self, queue: usize, due_ms: i64) -> Record {
        let delayed = message(self.next_delayed[queue], 3, due_ms);
        self.next_delayed[queue] += 1;
        Record::Delayed(delay_queue(queue), delayed)
    }

    /// The delayed message that is due first enters the stream, at `entered_ms` or else when it is due. Nothing if there is none.
    pub(crate) fn end_delay(&mut self, queue: usize, entered_ms: Option<i64>) -> Vec<Record> {
        let one = ReadLimit { messages: 1, bytes: 1 };
        let first = self.memory.first_due(delay_queue(queue), one, &BTreeSet::new()).unwrap().messages.pop();
        let Some(first) = first else { return Vec::new() };
        let appended = self.append(queue, 3, entered_ms.unwrap_or(first.entered_ms));
        vec![Record::DelayEnded(delay_queue(queue), first.entered_ms, first.seq), appended]
    }

    /// This number of messages at the front of the stream expires.
    pub(crate) fn expire(&mut self, queue: usize, count: u8) -> Record {
        let low = (self.low[queue] + u64::from(count)).min(self.next[queue]);
        self.low[queue] = low;
        Record::Expired { stream: StreamId(STREAMS[queue]), low, oldest: None }
    }

    /// All delayed messages are purged.
    pub(crate) fn purge_delayed(&self, queue: usize) -> Record {
        Record::DelayQueuePurged { delay_queue: delay_queue(queue), below: self.next_delayed[queue] }
    }

    /// Checks what an opened store says of the queues.
    pub(crate) fn compare_snapshot(&self, snapshot: &Snapshot) {
        for (queue, found) in snapshot.queues.iter().enumerate() {
            assert_eq!((found.stream.low, found.stream.next), (self.low[queue], self.next[queue]));
            let delayed = self.memory.first_due(delay_queue(queue), ALL, &BTreeSet::new()).unwrap().messages;
            let found = found.delay_queue;
            assert_eq!((found.next, found.count), (self.next_delayed[queue], delayed.len() as u64));
        }
    }

    /// Checks every message of a store.
    pub(crate) fn compare(&self, store: &dyn Store) {
        let memory: &dyn Store = &self.memory;
        for (queue, number) in STREAMS.into_iter().enumerate() {
            let (stream, delayed, low) = (StreamId(number), delay_queue(queue), self.low[queue]);
            let read = |store: &dyn Store| store.read(stream, low, ALL).unwrap().messages;
            assert_eq!(read(store), read(memory));
            let some: Vec<u64> = (low..self.next[queue]).step_by(7).collect();
            let these = |store: &dyn Store| store.read_these(stream, &some, usize::MAX).unwrap().messages;
            assert_eq!(these(store), these(memory));
            let due = |store: &dyn Store| store.first_due(delayed, ALL, &BTreeSet::new()).unwrap().messages;
            assert_eq!(due(store), due(memory));
            let all_delayed = |store: &dyn Store| store.read(delayed, 1, ALL).unwrap().messages;
            assert_eq!(all_delayed(store), all_delayed(memory));
        }
    }
}

/// The delay queue of a queue.
pub(crate) fn delay_queue(queue: usize) -> StreamId {
    StreamId(STREAMS[queue] + 1)
}
