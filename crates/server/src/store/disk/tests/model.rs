//! Random commits, maintenance, crashes and restarts: the disk store holds the same as the store in memory.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::store::{
    StoredMessage,
    disk::{
        tests::{ALL, queue, tidy_up},
        *,
    },
    memory::MemoryStore,
};
use dms_protocol::message::DeadLetterInfo;

/// Queues 1 and 3 with their streams, 1 and 3, and delay queues, 2 and 4.
const STREAMS: [u32; 2] = [1, 3];

#[derive(Clone, Debug)]
enum Step {
    Append(usize, u8, u16),
    Park(usize, i8),
    /// The delayed message that is due first enters the stream.
    EndDelays(usize),
    /// This number of messages at the front of the stream expires.
    Expire(usize, u8),
    /// All delayed messages are purged.
    Empty(usize),
    CatchUp,
    Tidy,
    Open(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 1..12u8, 0..3_000u16).prop_map(|(queue, count, size)| Step::Append(queue, count, size)),
        2 => (0..2usize, any::<i8>()).prop_map(|(queue, due)| Step::Park(queue, due)),
        1 => (0..2usize).prop_map(Step::EndDelays),
        3 => (0..2usize, 1..60u8).prop_map(|(queue, count)| Step::Expire(queue, count)),
        1 => (0..2usize).prop_map(Step::Empty),
        1 => Just(Step::CatchUp),
        3 => Just(Step::Tidy),
        1 => any::<bool>().prop_map(Step::Open),
    ]
}

/// The store, and its model.
struct Pair {
    dir: tempfile::TempDir,
    disk: DiskStore,
    memory: MemoryStore,
    low: [u64; 2],
    next: [u64; 2],
    next_parked: [u64; 2],
}

impl Pair {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = DiskStore::open_with(dir.path(), 32 * 1024).unwrap();
        let mut pair =
            Self { dir, disk, memory: MemoryStore::default(), low: [1; 2], next: [1; 2], next_parked: [1; 2] };
        pair.commit(&STREAMS.map(|number| Record::QueueCreated(queue(number))));
        pair
    }

    fn commit(&mut self, records: &[Record]) {
        self.disk.commit(records).unwrap();
        self.memory.commit(records).unwrap();
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append(queue, count, size) => {
                let records: Vec<Record> = (0..count).map(|_| self.appended(queue, usize::from(size), 5)).collect();
                self.commit(&records);
            }
            Step::Park(queue, due) => {
                let delayed = message(self.next_parked[queue], 3, i64::from(due));
                self.next_parked[queue] += 1;
                self.commit(&[Record::Delayed(StreamId(STREAMS[queue] + 1), delayed)]);
            }
            Step::EndDelays(queue) => {
                let delay_queue = StreamId(STREAMS[queue] + 1);
                let first = self
                    .memory
                    .first_due(delay_queue, ReadLimit { messages: 1, bytes: 1 }, &BTreeSet::new())
                    .unwrap()
                    .messages
                    .pop();
                if let Some(first) = first {
                    let appended = self.appended(queue, 3, first.entered_ms);
                    self.commit(&[Record::DelayEnded(delay_queue, first.entered_ms, first.seq), appended]);
                }
            }
            Step::Expire(queue, count) => {
                self.low[queue] = (self.low[queue] + u64::from(count)).min(self.next[queue]);
                let (stream, low) = (StreamId(STREAMS[queue]), self.low[queue]);
                self.commit(&[Record::Expired { stream, low, oldest: None }]);
            }
            Step::Empty(queue) => {
                let (delay_queue, below) = (StreamId(STREAMS[queue] + 1), self.next_parked[queue]);
                self.commit(&[Record::DelayQueuePurged { delay_queue, below }]);
            }
            Step::CatchUp => self.disk.flush_memtable().unwrap(),
            Step::Tidy => drop(tidy_up(&self.disk)),
            Step::Open(in_order) => {
                self.disk.release(in_order).unwrap();
                let (disk, snapshot) = DiskStore::open_with(self.dir.path(), 32 * 1024).unwrap();
                for (queue, found) in snapshot.queues.iter().enumerate() {
                    assert_eq!((found.stream.low, found.stream.next), (self.low[queue], self.next[queue]));
                    assert_eq!(found.delay_queue.next, self.next_parked[queue]);
                    let delayed = self.memory.first_due(StreamId(STREAMS[queue] + 1), ALL, &BTreeSet::new()).unwrap();
                    assert_eq!(found.delay_queue.count, delayed.messages.len() as u64);
                }
                self.disk = disk;
            }
        }
    }

    fn appended(&mut self, queue: usize, size: usize, entered_ms: i64) -> Record {
        let seq = self.next[queue];
        self.next[queue] += 1;
        Record::Appended(StreamId(STREAMS[queue]), message(seq, size, entered_ms))
    }

    fn compare(&self) {
        for (queue, number) in STREAMS.into_iter().enumerate() {
            let (stream, delay_queue, low) = (StreamId(number), StreamId(number + 1), self.low[queue]);
            assert_eq!(
                self.disk.read(stream, low, ALL).unwrap().messages,
                self.memory.read(stream, low, ALL).unwrap().messages
            );
            let some: Vec<u64> = (low..self.next[queue]).step_by(7).collect();
            let these = |store: &dyn Store| store.read_these(stream, &some, usize::MAX).unwrap().messages;
            assert_eq!(these(&self.disk), these(&self.memory));
            assert_eq!(
                self.disk.first_due(delay_queue, ALL, &BTreeSet::new()).unwrap().messages,
                self.memory.first_due(delay_queue, ALL, &BTreeSet::new()).unwrap().messages
            );
            assert_eq!(
                self.disk.read(delay_queue, 1, ALL).unwrap().messages,
                self.memory.read(delay_queue, 1, ALL).unwrap().messages
            );
        }
    }
}

fn message(seq: u64, size: usize, entered_ms: i64) -> Arc<StoredMessage> {
    let tags: Vec<String> = (0..seq % 3).map(|label| format!("label{label}")).collect();
    let json = format!("{seq}:{}", "x".repeat(size));
    let info = || {
        let mut info = DeadLetterInfo::new("failed");
        (info.error, info.attempts) = (Some(format!("队列 \"{seq}\"")), 3);
        info
    };
    let dead_letter = seq.is_multiple_of(4).then(|| Arc::new(info()));
    Arc::new(StoredMessage {
        seq,
        entered_ms,
        body_bytes: json.len(),
        json: json.into(),
        tags: tags.into(),
        dead_letter,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_memory_holds(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::begin();
        for step in &steps {
            pair.take(step);
            pair.compare();
        }
        pair.take(&Step::Open(true));
        pair.compare();
    }
}
