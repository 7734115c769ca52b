//! Whatever is written, written down, taken over and read again: the store holds what a store in memory holds, and a new owner
//! begins where the old one ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;

use super::{super::slots::SLOT_MS, *};
use crate::store::{
    CursorId, FirstPlace, KeyHash, MessageOrigin, MissedTicks, ReadLimit, ScheduleProgress, ScheduleRow,
    ScheduleSnapshot, ScheduleSource, SentKey, SentKeys, Settlement, Store, StoreError,
    test_model::{STREAMS, StoreModel, delay_queue},
};

/// The group that reads queue 1.
const CURSOR: CursorId = CursorId(5);

#[derive(Clone, Debug)]
enum Step {
    Append(usize, u8, u16),
    /// A message enters with a deduplication key that counts this number of hours.
    AppendWithKey(usize, u8),
    Delay(usize, i8),
    /// The delay of the message that is due first ends.
    EndDelay(usize),
    /// Some of the first messages are gone.
    Expire(usize, u8),
    PurgeDelayed(usize),
    /// The group hands out some messages: of five in a row, three are done, one is skipped and one failed.
    Settle(u8),
    PurgeGroup,
    /// A schedule of a queue is set, or removed if there is one.
    Schedule(usize),
    /// The schedule of a queue ticks.
    Tick(usize),
    /// Hours pass.
    Pass(u8),
    Maintain,
    /// Another server takes over, from an owner that released in order or not.
    TakeOver(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 1..12u8, 0..3_000u16).prop_map(|(queue, count, size)| Step::Append(queue, count, size)),
        2 => (0..2usize, 0..9u8).prop_map(|(queue, hours)| Step::AppendWithKey(queue, hours)),
        2 => (0..2usize, any::<i8>()).prop_map(|(queue, due)| Step::Delay(queue, due)),
        1 => (0..2usize).prop_map(Step::EndDelay),
        3 => (0..2usize, 1..60u8).prop_map(|(queue, count)| Step::Expire(queue, count)),
        1 => (0..2usize).prop_map(Step::PurgeDelayed),
        4 => (1..40u8).prop_map(Step::Settle),
        1 => Just(Step::PurgeGroup),
        1 => (0..2usize).prop_map(Step::Schedule),
        2 => (0..2usize).prop_map(Step::Tick),
        3 => (1..15u8).prop_map(Step::Pass),
        3 => Just(Step::Maintain),
        2 => any::<bool>().prop_map(Step::TakeOver),
    ]
}

/// The store, and its expected content.
struct Pair {
    config: PostgresConfig,
    pg: Owning,
    model: StoreModel,
    now_ms: i64,
    /// Places of queue 1 below `head` that are not settled, with their failures.
    ready: BTreeMap<u64, u32>,
    head: u64,
    consumed: u64,
    keys: Vec<SentKeys>,
    schedules: [Option<ScheduleSnapshot>; 2],
}

impl Pair {
    fn begin(server: &PgServer) -> Self {
        let config = config(&server.url());
        let pg = Node::join(&config).take();
        let pair = Self {
            config,
            pg,
            model: StoreModel::new(),
            now_ms: 100 * SLOT_MS,
            ready: BTreeMap::new(),
            head: 1,
            consumed: 0,
            keys: Vec::new(),
            schedules: [None, None],
        };
        STREAMS.into_iter().for_each(|number| pair.commit(&[Record::QueueCreated(queue(number))]));
        pair.commit(&[Record::GroupCreated(group(CURSOR.0, 1, 1))]);
        pair
    }

    fn commit(&self, records: &[Record]) {
        self.model.commit(&self.pg.store, records);
    }

    fn take(&mut self, step: &Step) {
        let (model, now_ms) = (&mut self.model, self.now_ms);
        match *step {
            Step::Append(queue, count, size) => {
                let records: Vec<Record> = (0..count).map(|_| model.append(queue, usize::from(size), now_ms)).collect();
                self.commit(&records);
            }
            Step::AppendWithKey(queue, hours) => self.append_with_key(queue, hours),
            Step::Delay(queue, due) => {
                let delayed = model.delay(queue, i64::from(due));
                self.commit(&[delayed]);
            }
            Step::EndDelay(queue) => {
                let ended = model.end_delay(queue, Some(now_ms));
                if !ended.is_empty() {
                    self.commit(&ended);
                }
            }
            Step::Expire(queue, count) => self.expire(queue, count),
            Step::PurgeDelayed(queue) => self.commit(&[self.model.purge_delayed(queue)]),
            Step::Settle(count) => self.settle(u64::from(count)),
            Step::PurgeGroup => {
                self.ready.clear();
                self.head = self.model.next[0];
                self.commit(&[Record::Purged { cursor: CURSOR, below: self.head }]);
            }
            Step::Schedule(queue) => self.schedule(queue),
            Step::Tick(queue) => self.tick(queue),
            Step::Pass(hours) => self.now_ms += i64::from(hours) * 3_600_000,
            Step::Maintain => {
                self.pg.store.write_image().unwrap();
                while self.pg.store.maintain().unwrap() {}
            }
            Step::TakeOver(in_order) => self.take_over(in_order),
        }
    }

    fn append_with_key(&mut self, queue: usize, hours: u8) {
        let (seq, now_ms) = (self.model.next[queue], self.now_ms);
        let key = SentKey {
            queue: StreamId(STREAMS[queue]),
            key: KeyHash::of(&seq.to_string()),
            id: MessageOrigin::new("9bf46390-38a2", FirstPlace::Queue, seq, now_ms),
            until_ms: now_ms + i64::from(hours) * 3_600_000,
        };
        let keys = SentKeys(vec![key]);
        self.keys.retain(|keys| keys.until_ms() > now_ms);
        self.keys.push(keys.clone());
        let appended = self.model.append(queue, 20, now_ms);
        self.commit(&[appended, Record::KeysSent { now_ms, keys }]);
    }

    fn schedule(&mut self, queue: usize) {
        let id = super::queue(STREAMS[queue]).id;
        let row = ScheduleRow {
            name: "nightly".to_owned(),
            cron: "0 2 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            missed: MissedTicks::Once,
            source: ScheduleSource::Command,
            paused: false,
            body: "1".into(),
            attributes: "{}".into(),
            tags: Arc::default(),
            created_ms: self.now_ms,
        };
        let progress = ScheduleProgress { done_ms: self.now_ms, ..ScheduleProgress::default() };
        let record = match self.schedules[queue].take() {
            Some(schedule) => Record::ScheduleRemoved(id, schedule.row.name),
            None => {
                self.schedules[queue] = Some(ScheduleSnapshot { row: row.clone(), progress });
                Record::ScheduleSet { queue: id, row: Box::new(row), progress }
            }
        };
        self.commit(&[record]);
    }

    fn tick(&mut self, queue: usize) {
        let Some(schedule) = &mut self.schedules[queue] else { return };
        schedule.progress =
            ScheduleProgress { done_ms: self.now_ms, sent: schedule.progress.sent + 1, ..schedule.progress };
        let (name, progress) = (schedule.row.name.clone(), schedule.progress);
        let appended = self.model.append(queue, 20, self.now_ms);
        let id = super::queue(STREAMS[queue]).id;
        self.commit(&[appended, Record::ScheduleTicked { queue: id, name, progress }]);
    }

    fn expire(&mut self, queue: usize, count: u8) {
        let expired = self.model.expire(queue, count);
        if queue == 0 {
            let low = self.model.low[0];
            self.ready = self.ready.split_off(&low);
            self.head = self.head.max(low);
        }
        self.commit(&[expired]);
    }

    fn settle(&mut self, count: u64) {
        let (from, to) = (self.head, (self.head + count).min(self.model.next[0]));
        let mut settlement = Settlement { head: to, ..Settlement::default() };
        for place in from..to {
            match place % 5 {
                3 => {
                    settlement.failed.push((place, 2));
                    self.ready.insert(place, 2);
                }
                4 => settlement.skipped.push(place..place + 1),
                _ => settlement.done.push(place),
            }
        }
        // One that failed before is done now.
        if let Some((place, _)) = self.ready.pop_first() {
            settlement.done.push(place);
        }
        self.consumed += settlement.done.len() as u64;
        self.head = to;
        self.commit(&[Record::Settled { cursor: CURSOR, lease: None, histories: Vec::new(), settlement }]);
    }

    fn take_over(&mut self, in_order: bool) {
        let next = Node::join(&self.config);
        if in_order {
            self.pg.store.release(true).unwrap();
        } else {
            self.pg.node.member.freeze();
        }
        let old = std::mem::replace(&mut self.pg, next.take());
        let refused = old.store.commit(&[Record::GivenUp]);
        assert!(refused.as_ref().is_err_and(StoreError::is_lost), "{refused:?}");
        let snapshot = &self.pg.snapshot;
        assert_eq!((snapshot.queues.len(), snapshot.groups.len(), snapshot.next_number), (2, 1, 7));
        self.model.compare_snapshot(snapshot);
        for (queue, found) in snapshot.queues.iter().enumerate() {
            assert_eq!(found.schedules, self.schedules[queue].iter().cloned().collect::<Vec<_>>());
            let memory = &self.model.memory;
            let first = memory.read(StreamId(STREAMS[queue]), self.model.low[queue], ALL).unwrap().messages;
            assert_eq!(found.stream.oldest.is_some(), !first.is_empty());
            assert!(first.first().is_none_or(|first| found.stream.oldest.unwrap() <= first.entered_ms));
            assert!(first.last().is_none_or(|last| found.stream.newest >= last.entered_ms));
            let delayed = memory.first_due(delay_queue(queue), ALL, &BTreeSet::new()).unwrap().messages;
            assert_eq!(found.delay_queue.next_due, delayed.first().map(|first| first.entered_ms));
        }
        let in_order = |keys: &[SentKeys]| keys.iter().map(SentKeys::to_bytes).collect::<BTreeSet<_>>();
        assert_eq!(in_order(&snapshot.keys), in_order(&self.keys));
        let cursor = &snapshot.groups[0].cursor;
        assert_eq!((cursor.head, cursor.consumed), (self.head, self.consumed));
        assert_eq!(cursor.ready, self.ready.clone().into_iter().collect::<Vec<_>>());
    }

    fn compare(&self) {
        let (pg, memory): (&dyn Store, &dyn Store) = (&self.pg.store, &self.model.memory);
        self.model.compare(pg);
        for (queue, number) in STREAMS.into_iter().enumerate() {
            let (stream, delayed, low) = (StreamId(number), delay_queue(queue), self.model.low[queue]);
            let few = ReadLimit { messages: 7, bytes: 9_000 };
            let read = |store: &dyn Store| store.read(stream, low + 3, few).unwrap().messages;
            assert_eq!(read(pg), read(memory));
            let some: Vec<u64> = (low..self.model.next[queue]).step_by(7).collect();
            let these = |store: &dyn Store| store.read_these(stream, &some, usize::MAX).unwrap();
            assert_eq!(these(pg), these(memory));
            let until = self.now_ms - SLOT_MS;
            let times = |store: &dyn Store| store.entered(stream, low, 50, until).unwrap();
            assert_eq!(times(pg), times(memory));
            let due = |store: &dyn Store| store.first_due(delayed, ALL, &BTreeSet::from([2])).unwrap().messages;
            assert_eq!(due(pg), due(memory));
            assert_eq!(pg.read(delayed, 1, ALL).unwrap(), memory.read(delayed, 1, ALL).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_store_holds_what_memory_holds_through_any_take_over(steps in prop::collection::vec(step(), 1..40)) {
        let Some(server) = PgServer::shared() else { return Ok(()) };
        let mut pair = Pair::begin(server);
        for step in &steps {
            pair.take(step);
            pair.compare();
        }
        pair.take(&Step::TakeOver(true));
        pair.compare();
        pair.take(&Step::Maintain);
        pair.take(&Step::TakeOver(false));
        pair.compare();
    }
}
