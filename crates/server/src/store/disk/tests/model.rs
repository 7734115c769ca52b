//! Random commits, maintenance, crashes and restarts: the disk store holds the same as the store in memory.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use crate::store::{
    disk::{tests::tidy_up, *},
    test_model::{STREAMS, StoreModel, queue},
};

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
    model: StoreModel,
}

impl Pair {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = DiskStore::open_with(dir.path(), 32 * 1024).unwrap();
        let pair = Self { dir, disk, model: StoreModel::new() };
        pair.commit(&STREAMS.map(|number| Record::QueueCreated(queue(number))));
        pair
    }

    fn commit(&self, records: &[Record]) {
        self.model.commit(&self.disk, records);
    }

    fn take(&mut self, step: &Step) {
        let model = &mut self.model;
        match *step {
            Step::Append(queue, count, size) => {
                let records: Vec<Record> = (0..count).map(|_| model.append(queue, usize::from(size), 5)).collect();
                self.commit(&records);
            }
            Step::Park(queue, due) => {
                let delayed = model.delay(queue, i64::from(due));
                self.commit(&[delayed]);
            }
            Step::EndDelays(queue) => {
                let ended = model.end_delay(queue, None);
                if !ended.is_empty() {
                    self.commit(&ended);
                }
            }
            Step::Expire(queue, count) => {
                let expired = model.expire(queue, count);
                self.commit(&[expired]);
            }
            Step::Empty(queue) => self.commit(&[self.model.purge_delayed(queue)]),
            Step::CatchUp => self.disk.flush_memtable().unwrap(),
            Step::Tidy => drop(tidy_up(&self.disk)),
            Step::Open(in_order) => {
                self.disk.release(in_order).unwrap();
                let (disk, snapshot) = DiskStore::open_with(self.dir.path(), 32 * 1024).unwrap();
                self.model.compare_snapshot(&snapshot);
                self.disk = disk;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_memory_holds(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::begin();
        for step in &steps {
            pair.take(step);
            pair.model.compare(&pair.disk);
        }
        pair.take(&Step::Open(true));
        pair.model.compare(&pair.disk);
    }
}
