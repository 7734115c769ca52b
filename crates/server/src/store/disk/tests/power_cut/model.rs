//! The expected content of a store: a model that is as simple as possible, without files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::store::{
    CursorSnapshot, DelayQueueSnapshot, GroupRow, QueueRow, RetentionPolicy, ScheduleSnapshot, SentKeys, Settlement,
    StoredMessage, StreamSnapshot,
    disk::{tests::ALL, *},
};
use dms_protocol::queue::{QueueId, QueueTag, TagFilter};

/// The messages of a stream or delay queue.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) low: u64,
    pub(crate) next: u64,
    pub(crate) newest: i64,
    pub(crate) messages: BTreeMap<u64, Arc<StoredMessage>>,
}

/// A queue without its messages.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) row: QueueRow,
    tags: Vec<QueueTag>,
    retention: RetentionPolicy,
    pub(crate) schedules: BTreeMap<String, ScheduleSnapshot>,
}

/// The position of a group.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) stream: u32,
    start: u64,
    head: u64,
    consumed: u64,
    settled: BTreeSet<u64>,
    failures: BTreeMap<u64, u32>,
    rule: Option<TagFilter>,
}

/// The whole content.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) next_number: u32,
    pub(crate) queues: BTreeMap<u32, Queue>,
    pub(crate) groups: BTreeMap<u32, GroupRow>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) cursors: BTreeMap<u32, Cursor>,
    keys: Vec<SentKeys>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            next_number: 1,
            queues: BTreeMap::new(),
            groups: BTreeMap::new(),
            streams: BTreeMap::new(),
            cursors: BTreeMap::new(),
            keys: Vec::new(),
        }
    }
}

/// The content as seen from outside.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    next_number: u32,
    queues: Vec<SeenQueue>,
    groups: Vec<SeenGroup>,
    keys: Vec<SentKeys>,
}

#[derive(Debug, PartialEq)]
struct SeenQueue {
    row: QueueRow,
    tags: Vec<QueueTag>,
    retention: RetentionPolicy,
    schedules: Vec<ScheduleSnapshot>,
    stream: SeenStream,
    delay_queue: DelayQueueSnapshot,
    delayed: Vec<Arc<StoredMessage>>,
}

#[derive(Debug, PartialEq)]
struct SeenGroup {
    row: GroupRow,
    cursor: CursorSnapshot,
    dead_letters: SeenStream,
    dead_letter_cursor: CursorSnapshot,
}

#[derive(Debug, PartialEq)]
struct SeenStream {
    marks: (u64, u64, i64),
    messages: Vec<Arc<StoredMessage>>,
}

impl Seen {
    /// How it differs from the expected content: the first line that is different, and the lines before it.
    pub(crate) fn differs_from(&self, expected: &Self) -> Option<String> {
        if self == expected {
            return None;
        }
        let (seen, expected) = (format!("{self:#?}"), format!("{expected:#?}"));
        let place = seen.lines().zip(expected.lines()).take_while(|(seen, expected)| seen == expected).count();
        let about = |text: &str| text.lines().skip(place.saturating_sub(12)).take(18).collect::<Vec<_>>().join("\n");
        Some(format!("holds\n{}\nand not\n{}", about(&seen), about(&expected)))
    }
}

impl Cursor {
    fn new(stream: u32, start: u64) -> Self {
        let (settled, failures) = (BTreeSet::new(), BTreeMap::new());
        Self { stream, start, head: start, consumed: 0, settled, failures, rule: None }
    }

    /// The messages that are not settled.
    pub(crate) fn open(&self, stream: &Stream, end: u64) -> Vec<u64> {
        (self.start.max(stream.low)..end).filter(|place| !self.settled.contains(place)).collect()
    }

    fn settle(&mut self, settlement: &Settlement) {
        self.consumed += settlement.done.len() as u64;
        self.head = self.head.max(settlement.head);
        self.settled.extend(settlement.done.iter().chain(&settlement.dead));
        self.settled.extend(settlement.skipped.iter().cloned().flatten());
        self.failures.extend(settlement.failed.iter().copied());
    }

    fn mark(&self, stream: &Stream) -> CursorSnapshot {
        let failures = |place| (place, self.failures.get(&place).copied().unwrap_or_default());
        let ready = self.open(stream, self.head).into_iter().map(failures).collect();
        CursorSnapshot { head: self.head, consumed: self.consumed, ready, rule: self.rule.clone() }
    }
}

impl Stream {
    fn new() -> Self {
        Self { low: 1, next: 1, newest: 0, messages: BTreeMap::new() }
    }

    fn add(&mut self, message: &Arc<StoredMessage>) {
        self.next = message.seq + 1;
        self.messages.insert(message.seq, message.clone());
    }

    fn see(&self) -> SeenStream {
        SeenStream { marks: (self.low, self.next, self.newest), messages: self.messages.values().cloned().collect() }
    }
}

impl Model {
    pub(crate) fn take(&mut self, record: &Record) {
        match record {
            Record::QueueCreated(row) => {
                self.streams.insert(row.number, Stream::new());
                self.streams.insert(row.number + 1, Stream::new());
                let (tags, retention, schedules) = (Vec::new(), RetentionPolicy::default(), BTreeMap::new());
                self.queues.insert(row.number, Queue { row: row.clone(), tags, retention, schedules });
                self.next_number = row.number + 2;
            }
            Record::GroupCreated(row) => {
                let queue = self.queue(&row.queue).row.number;
                self.streams.insert(row.number + 1, Stream::new());
                self.cursors.insert(row.number, Cursor::new(queue, row.start));
                self.cursors.insert(row.number + 1, Cursor::new(row.number + 1, 1));
                self.groups.insert(row.number, row.clone());
                self.next_number = row.number + 2;
            }
            Record::QueueDeleted(id) => {
                let number = self.queue(id).row.number;
                self.queues.remove(&number);
                self.groups.retain(|_, group| group.queue != *id);
                self.forget_ownerless();
            }
            Record::GroupDeleted(_, id) => {
                self.groups.retain(|_, group| group.id != *id);
                self.forget_ownerless();
            }
            Record::TagsSet(id, tags) => self.queue(id).tags = tags.clone(),
            Record::RetentionSet(id, retention) => self.queue(id).retention = *retention,
            Record::QueueChanged(row) => self.queue(&row.id).row = row.clone(),
            Record::ScheduleSet { queue, row, progress } => {
                let schedule = ScheduleSnapshot { row: (**row).clone(), progress: *progress };
                self.queue(queue).schedules.insert(row.name.clone(), schedule);
            }
            Record::ScheduleRemoved(queue, name) => {
                self.queue(queue).schedules.remove(name);
            }
            Record::ScheduleTicked { queue, name, progress } => {
                self.queue(queue).schedules.get_mut(name).unwrap().progress = *progress;
            }
            Record::Purged { cursor, below } => {
                let cursor = self.cursors.get_mut(&cursor.0).unwrap();
                cursor.settled.extend(cursor.start..*below);
                cursor.head = cursor.head.max(*below);
            }
            Record::DelayQueuePurged { delay_queue, below } => {
                self.streams.get_mut(&delay_queue.0).unwrap().messages.retain(|place, _| place >= below);
            }
            Record::RuleFixed(cursor, rule) => {
                self.cursors.get_mut(&cursor.0).unwrap().rule = Some(rule.clone());
            }
            Record::Appended(stream, message) => {
                let stream = self.streams.get_mut(&stream.0).unwrap();
                stream.add(message);
                stream.newest = stream.newest.max(message.entered_ms);
            }
            Record::Delayed(delay_queue, message) => self.streams.get_mut(&delay_queue.0).unwrap().add(message),
            Record::DelayEnded(delay_queue, _, place) => {
                self.streams.get_mut(&delay_queue.0).unwrap().messages.remove(place);
            }
            Record::Settled { cursor, settlement, .. } => self.cursors.get_mut(&cursor.0).unwrap().settle(settlement),
            Record::GivenUp => {}
            Record::KeysSent { now_ms, keys } => {
                self.keys.retain(|keys| keys.until_ms() > *now_ms);
                self.keys.push(keys.clone());
            }
            Record::Expired { stream, low, .. } => {
                let number = stream.0;
                let stream = self.streams.get_mut(&number).unwrap();
                stream.low = stream.low.max(*low);
                stream.messages.retain(|place, _| place >= low);
                for cursor in self.cursors.values_mut().filter(|cursor| cursor.stream == number) {
                    cursor.head = cursor.head.max(*low);
                }
            }
        }
    }

    fn queue(&mut self, id: &QueueId) -> &mut Queue {
        self.queues.values_mut().find(|queue| queue.row.id == *id).unwrap()
    }

    fn forget_ownerless(&mut self) {
        let owners: BTreeSet<u32> =
            self.queues.keys().chain(self.groups.keys()).flat_map(|number| [*number, number + 1]).collect();
        self.streams.retain(|number, _| owners.contains(number));
        self.cursors.retain(|number, _| owners.contains(number));
    }

    pub(crate) fn see(&self) -> Seen {
        let queue = |Queue { row, tags, retention, schedules }: &Queue| {
            let delay_queue = &self.streams[&row.delay_queue().0];
            let mut delayed: Vec<_> = delay_queue.messages.values().cloned().collect();
            delayed.sort_by_key(|message| (message.entered_ms, message.seq));
            let next_due = delayed.first().map(|message| message.entered_ms);
            SeenQueue {
                row: row.clone(),
                tags: tags.clone(),
                retention: *retention,
                schedules: schedules.values().cloned().collect(),
                stream: self.streams[&row.number].see(),
                delay_queue: DelayQueueSnapshot { next: delay_queue.next, count: delayed.len() as u64, next_due },
                delayed,
            }
        };
        let mark = |number: u32| {
            let cursor = &self.cursors[&number];
            cursor.mark(&self.streams[&cursor.stream])
        };
        let group = |row: &GroupRow| SeenGroup {
            row: row.clone(),
            cursor: mark(row.number),
            dead_letters: self.streams[&row.dead_letters().0].see(),
            dead_letter_cursor: mark(row.dead_letter_cursor().0),
        };
        Seen {
            next_number: self.next_number,
            queues: self.queues.values().map(queue).collect(),
            groups: self.groups.values().map(group).collect(),
            keys: self.keys.clone(),
        }
    }
}

/// The content of a newly opened store.
pub(crate) fn see(store: &DiskStore, snapshot: Snapshot) -> Seen {
    let stream = |number: StreamId, mark: StreamSnapshot| {
        let found = store.read(number, mark.low, ALL).unwrap();
        assert_eq!(found.damaged, [], "damaged messages");
        SeenStream { marks: (mark.low, mark.next, mark.newest), messages: found.messages }
    };
    let queues = snapshot.queues.into_iter().map(|queue| SeenQueue {
        stream: stream(queue.row.stream(), queue.stream),
        delayed: store.first_due(queue.row.delay_queue(), ALL, &BTreeSet::new()).unwrap().messages,
        row: queue.row,
        tags: queue.tags,
        retention: queue.retention,
        schedules: queue.schedules,
        delay_queue: queue.delay_queue,
    });
    let groups = snapshot.groups.into_iter().map(|group| SeenGroup {
        dead_letters: stream(group.row.dead_letters(), group.dead_letters),
        row: group.row,
        cursor: group.cursor,
        dead_letter_cursor: group.dead_letter_cursor,
    });
    let (queues, groups) = (queues.collect(), groups.collect());
    Seen { next_number: snapshot.next_number, queues, groups, keys: snapshot.keys }
}

/// Checks that an open store shows exactly the expected messages.
pub(crate) fn shows(store: &DiskStore, model: &Model) -> Result<(), String> {
    let streams = model.queues.keys().copied().chain(model.groups.keys().map(|group| group + 1));
    for number in streams {
        let expected = model.streams[&number].see();
        let found = store.read(StreamId(number), expected.marks.0, ALL).map_err(|error| error.to_string())?;
        if found.messages != expected.messages {
            return Err(format!(
                "stream {number} has {} messages and not {}",
                found.messages.len(),
                expected.messages.len()
            ));
        }
    }
    Ok(())
}
