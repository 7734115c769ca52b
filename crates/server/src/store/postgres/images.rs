//! The state of a shard without its messages: queues, groups, cursors and settled places. A new owner loads the last image and
//! replays the journal into it. Maintenance writes changed rows to the image, so that the journal stays short. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::store::{
    CursorId, CursorSnapshot, GroupRow, QueueRow, Record, RetentionPolicy, ScheduleProgress, ScheduleRow,
    ScheduleSnapshot, SentKeys, Settlement, StreamId,
    postgres::journal::Change,
    settled_page::{PAGE_MESSAGES, SettledPage, locate},
};
use dms_protocol::queue::{QueueId, QueueTag, TagFilter};

/// A queue with its tags and its retention.
#[derive(Clone, Debug)]
pub(crate) struct QueueImage {
    pub(crate) row: QueueRow,
    pub(crate) tags: Vec<QueueTag>,
    pub(crate) retention: RetentionPolicy,
}

/// A stream, or a delay queue, of which only `next` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamImage {
    /// The first message that is there.
    pub(crate) low: u64,
    /// The place of the next message.
    pub(crate) next: u64,
    /// When the last one entered.
    pub(crate) newest_ms: i64,
}

impl StreamImage {
    const EMPTY: Self = Self { low: 1, next: 1, newest_ms: 0 };
}

/// A cursor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CursorImage {
    /// The stream that it reads.
    pub(crate) stream: StreamId,
    /// The first message it was ever to be given.
    pub(crate) start: u64,
    /// No message from here on was handed out.
    pub(crate) head: u64,
    /// All pages before this one are settled or expired.
    pub(crate) page: u64,
    /// Messages acknowledged.
    pub(crate) consumed: u64,
    /// The label rule.
    pub(crate) rule: Option<TagFilter>,
}

/// The state of a shard without messages, up to a commit.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// The last commit in it.
    pub(crate) commit_no: u64,
    /// The number that the next queue or group gets.
    pub(crate) next_number: u32,
    pub(crate) queues: BTreeMap<u32, QueueImage>,
    pub(crate) groups: BTreeMap<u32, GroupRow>,
    pub(crate) streams: BTreeMap<StreamId, StreamImage>,
    pub(crate) cursors: BTreeMap<CursorId, CursorImage>,
    /// The numbers of the queues by their ids.
    numbers: HashMap<QueueId, u32>,
    /// Which cursors read a stream.
    readers: BTreeMap<StreamId, Vec<CursorId>>,
    /// Pages that are not settled whole.
    pub(crate) pages: BTreeMap<(CursorId, u64), SettledPage>,
    /// The schedules, by the number of their queue and their name.
    pub(crate) schedules: BTreeMap<(u32, String), ScheduleSnapshot>,
    /// The deduplication keys of commits, by the end of their last window and the number of the commit.
    pub(crate) keys: BTreeMap<(i64, u64), SentKeys>,
    /// The rows that differ from the last written image.
    pub(crate) dirty: Dirty,
}

/// The keys of rows that differ from the last written image. If there is no value for a key, its row is deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) queues: BTreeSet<u32>,
    pub(crate) groups: BTreeSet<u32>,
    pub(crate) streams: BTreeSet<StreamId>,
    pub(crate) cursors: BTreeSet<CursorId>,
    pub(crate) pages: BTreeSet<(CursorId, u64)>,
    pub(crate) schedules: BTreeSet<(u32, String)>,
    pub(crate) keys: BTreeSet<(i64, u64)>,
}

impl Dirty {
    /// Adds all keys of another set.
    pub(crate) fn merge(&mut self, other: Self) {
        self.queues.extend(other.queues);
        self.groups.extend(other.groups);
        self.streams.extend(other.streams);
        self.cursors.extend(other.cursors);
        self.pages.extend(other.pages);
        self.schedules.extend(other.schedules);
        self.keys.extend(other.keys);
    }
}

impl Images {
    /// Takes in a change. One of a queue or group that is gone changes nothing.
    pub(crate) fn apply(&mut self, change: &Change<'_>) {
        match change {
            Change::Appended(appended) => self.change_stream(appended.stream, |stream| {
                stream.next = stream.next.max(appended.end());
                stream.newest_ms = stream.newest_ms.max(appended.newest_ms);
            }),
            Change::Delayed { queue, seq } => self.change_stream(*queue, |queue| queue.next = queue.next.max(seq + 1)),
            Change::Other(record) => self.apply_record(record),
        }
    }

    fn apply_record(&mut self, record: &Record) {
        match record {
            Record::QueueCreated(row) => self.create_queue(row),
            Record::QueueDeleted(queue) => self.delete_queue(queue),
            Record::GroupCreated(row) => self.create_group(row),
            Record::GroupDeleted(queue, group) => {
                let is_it = |number: &u32| self.groups.get(number).is_some_and(|row| row.id == *group);
                let number = self.groups_of(queue).into_iter().find(is_it);
                number.into_iter().for_each(|number| self.delete_group(number));
            }
            Record::TagsSet(queue, tags) => self.change_queue(queue, |queue| queue.tags.clone_from(tags)),
            Record::RetentionSet(queue, policy) => self.change_queue(queue, |queue| queue.retention = *policy),
            Record::KeysSent { now_ms, keys } => self.add_keys(*now_ms, keys),
            Record::QueueChanged(row) => self.change_queue(&row.id, |queue| queue.row.clone_from(row)),
            Record::ScheduleSet { queue, row, progress } => self.set_schedule(queue, row, *progress),
            Record::ScheduleRemoved(queue, name) => self.remove_schedule(queue, name),
            Record::ScheduleTicked { queue, name, progress } => self.tick(queue, name, *progress),
            Record::RuleFixed(cursor, rule) => self.change_cursor(*cursor, |cursor| cursor.rule = Some(rule.clone())),
            Record::Settled { cursor, settlement, .. } => self.settle(*cursor, settlement),
            Record::Purged { cursor, below } => self.purge(*cursor, *below),
            Record::Expired { stream, low, .. } => self.expire(*stream, *low),
            // Delayed messages are in a separate table, and nothing of them is kept here.
            Record::DelayEnded(..)
            | Record::DelayQueuePurged { .. }
            | Record::GivenUp
            | Record::Appended(..)
            | Record::Delayed(..) => {}
        }
    }

    /// Adds the keys of the commit that is being taken in, and removes those whose windows have ended.
    fn add_keys(&mut self, now_ms: i64, keys: &SentKeys) {
        while let Some(first) = self.keys.first_entry().filter(|first| first.key().0 <= now_ms) {
            self.dirty.keys.insert(first.remove_entry().0);
        }
        // The number of the commit that is being taken in: `commit_no` follows when all of its changes are applied.
        let key = (keys.until_ms(), self.commit_no + 1);
        self.keys.insert(key, keys.clone());
        self.dirty.keys.insert(key);
    }

    fn set_schedule(&mut self, queue: &QueueId, row: &ScheduleRow, progress: ScheduleProgress) {
        let Some(number) = self.number_of(queue) else { return };
        let key = (number, row.name.clone());
        self.schedules.insert(key.clone(), ScheduleSnapshot { row: row.clone(), progress });
        self.dirty.schedules.insert(key);
    }

    fn remove_schedule(&mut self, queue: &QueueId, name: &str) {
        let Some(number) = self.number_of(queue) else { return };
        let key = (number, name.to_owned());
        self.schedules.remove(&key);
        self.dirty.schedules.insert(key);
    }

    fn tick(&mut self, queue: &QueueId, name: &str, progress: ScheduleProgress) {
        let Some(number) = self.number_of(queue) else { return };
        let key = (number, name.to_owned());
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.progress = progress;
            self.dirty.schedules.insert(key);
        }
    }

    /// The schedules of a queue.
    pub(crate) fn schedules_of(&self, queue: u32) -> impl Iterator<Item = (&(u32, String), &ScheduleSnapshot)> {
        self.schedules.range((queue, String::new())..(queue + 1, String::new()))
    }

    fn create_queue(&mut self, row: &QueueRow) {
        let (tags, retention) = (Vec::new(), RetentionPolicy::default());
        self.add_queue(row.number, QueueImage { row: row.clone(), tags, retention });
        self.dirty.queues.insert(row.number);
        self.create_stream(row.stream());
        self.create_stream(row.delay_queue());
        // Two numbers, because the delay queue has the one behind the queue's.
        self.next_number = self.next_number.max(row.number + 2);
    }

    /// Adds a queue as it is.
    pub(crate) fn add_queue(&mut self, number: u32, image: QueueImage) {
        self.numbers.insert(image.row.id.clone(), number);
        self.queues.insert(number, image);
    }

    fn create_group(&mut self, row: &GroupRow) {
        let Some(number) = self.number_of(&row.queue) else { return };
        self.groups.insert(row.number, row.clone());
        self.dirty.groups.insert(row.number);
        self.create_stream(row.dead_letters());
        self.create_cursor(row.cursor(), StreamId(number), row.start);
        self.create_cursor(row.dead_letter_cursor(), row.dead_letters(), 1);
        // Two numbers, because the cursor on the dead letters has the one behind the group's.
        self.next_number = self.next_number.max(row.number + 2);
    }

    fn create_stream(&mut self, stream: StreamId) {
        self.streams.insert(stream, StreamImage::EMPTY);
        self.dirty.streams.insert(stream);
    }

    fn create_cursor(&mut self, cursor: CursorId, stream: StreamId, start: u64) {
        let page = start / PAGE_MESSAGES;
        self.add_cursor(cursor, CursorImage { stream, start, head: start, page, consumed: 0, rule: None });
        self.dirty.cursors.insert(cursor);
    }

    /// Adds a cursor as it is.
    pub(crate) fn add_cursor(&mut self, cursor: CursorId, image: CursorImage) {
        self.readers.entry(image.stream).or_default().push(cursor);
        self.cursors.insert(cursor, image);
    }

    fn delete_queue(&mut self, queue: &QueueId) {
        let Some(number) = self.number_of(queue) else { return };
        self.groups_of(queue).into_iter().for_each(|number| self.delete_group(number));
        let schedules: Vec<_> = self.schedules_of(number).map(|(key, _)| key.clone()).collect();
        for key in schedules {
            self.schedules.remove(&key);
            self.dirty.schedules.insert(key);
        }
        self.queues.remove(&number);
        self.numbers.remove(queue);
        self.dirty.queues.insert(number);
        self.remove_pair(number);
    }

    fn delete_group(&mut self, number: u32) {
        self.groups.remove(&number);
        self.dirty.groups.insert(number);
        self.remove_pair(number);
    }

    /// Removes the streams and cursors of a queue or group, which have its number and the next one.
    fn remove_pair(&mut self, number: u32) {
        for number in [number, number + 1] {
            // Only what was there is marked. A queue has two streams and no cursor, a group has one stream and two
            // cursors.
            if self.streams.remove(&StreamId(number)).is_some() {
                self.dirty.streams.insert(StreamId(number));
            }
            if let Some(image) = self.cursors.remove(&CursorId(number)) {
                self.readers.entry(image.stream).or_default().retain(|cursor| cursor.0 != number);
                self.dirty.cursors.insert(CursorId(number));
            }
            self.readers.remove(&StreamId(number));
            self.drop_pages(CursorId(number), u64::MAX);
        }
    }

    /// Removes the pages of a cursor before the page `before`.
    fn drop_pages(&mut self, cursor: CursorId, before: u64) {
        let gone: Vec<_> = self.pages.range((cursor, 0)..(cursor, before)).map(|(key, _)| *key).collect();
        for key in gone {
            self.pages.remove(&key);
            self.dirty.pages.insert(key);
        }
    }

    pub(crate) fn number_of(&self, queue: &QueueId) -> Option<u32> {
        self.numbers.get(queue).copied()
    }

    /// The streams that have messages. Delayed messages are in no stream.
    pub(crate) fn streams_with_messages(&self) -> impl Iterator<Item = (StreamId, StreamImage)> {
        let is_delay_queue = |stream: &StreamId| self.queues.contains_key(&stream.0.wrapping_sub(1));
        let found =
            self.streams.iter().filter(move |(stream, image)| image.low < image.next && !is_delay_queue(stream));
        found.map(|(stream, image)| (*stream, *image))
    }

    /// The numbers of a queue's groups.
    fn groups_of(&self, queue: &QueueId) -> Vec<u32> {
        let readers = self.number_of(queue).and_then(|number| self.readers.get(&StreamId(number)));
        // A group has the number of its cursor on the queue's stream.
        readers.into_iter().flatten().map(|cursor| cursor.0).collect()
    }

    fn change_queue(&mut self, queue: &QueueId, change: impl FnOnce(&mut QueueImage)) {
        let Some(number) = self.number_of(queue) else { return };
        if let Some(image) = self.queues.get_mut(&number) {
            change(image);
            self.dirty.queues.insert(number);
        }
    }

    fn change_stream(&mut self, stream: StreamId, change: impl FnOnce(&mut StreamImage)) {
        if let Some(image) = self.streams.get_mut(&stream) {
            change(image);
            self.dirty.streams.insert(stream);
        }
    }

    fn change_cursor(&mut self, cursor: CursorId, change: impl FnOnce(&mut CursorImage)) {
        if let Some(image) = self.cursors.get_mut(&cursor) {
            change(image);
            self.dirty.cursors.insert(cursor);
        }
    }

    fn settle(&mut self, cursor: CursorId, settlement: &Settlement) {
        self.change_cursor(cursor, |image| {
            image.consumed += settlement.done.len() as u64 + settlement.counted;
            // Never backwards, because expiry and purges advance the head, too.
            image.head = image.head.max(settlement.head);
        });
        for place in settlement.done.iter().chain(&settlement.dead) {
            let (page, place) = locate(*place);
            self.change_page(cursor, page, |page| page.settle(place));
        }
        for (place, failures) in &settlement.failed {
            let (page, place) = locate(*place);
            self.change_page(cursor, page, |page| page.fail(place, *failures));
        }
        for range in &settlement.skipped {
            let mut from = range.start;
            while from < range.end {
                let (page, first) = locate(from);
                let next = (page + 1) * PAGE_MESSAGES;
                let last = if range.end < next { locate(range.end).1 } else { 1_024 };
                self.change_page(cursor, page, |page| page.settle_range(first..last));
                from = next;
            }
        }
        self.pass_full_pages(cursor);
    }

    /// Changes a page, unless all of it is settled or expired.
    fn change_page(&mut self, cursor: CursorId, page: u64, change: impl FnOnce(&mut SettledPage)) {
        let Some(image) = self.cursors.get(&cursor).filter(|image| page >= image.page) else { return };
        let start = image.start;
        // Only pages with settled messages are kept, so a cursor that has not begun costs nothing, however long its
        // stream is.
        change(self.pages.entry((cursor, page)).or_insert_with(|| untouched_page(start, page)));
        self.dirty.pages.insert((cursor, page));
    }

    /// Moves a cursor past its first pages that are settled whole, so that they need no rows.
    fn pass_full_pages(&mut self, cursor: CursorId) {
        let Some(image) = self.cursors.get_mut(&cursor) else { return };
        let mut passed = false;
        // Later pages may be full already, and only waited for this one.
        while self.pages.get(&(cursor, image.page)).is_some_and(SettledPage::is_full) {
            image.page += 1;
            passed = true;
        }
        if passed {
            let page = image.page;
            self.drop_pages(cursor, page);
        }
    }

    /// The messages of a stream below `low` are gone, for all of its cursors.
    fn expire(&mut self, stream: StreamId, low: u64) {
        self.change_stream(stream, |stream| stream.low = stream.low.max(low));
        // Nobody settles expired messages any more, so their pages would stay forever.
        let cursors = self.readers.get(&stream).cloned().unwrap_or_default();
        cursors.into_iter().for_each(|cursor| self.move_cursor(cursor, low));
    }

    /// Advances a cursor to `place`, and removes its pages of messages before that.
    fn move_cursor(&mut self, cursor: CursorId, place: u64) {
        self.change_cursor(cursor, |image| {
            image.head = image.head.max(place);
            image.page = image.page.max(place / PAGE_MESSAGES);
        });
        if let Some(page) = self.cursors.get(&cursor).map(|image| image.page) {
            self.drop_pages(cursor, page);
        }
    }

    /// The messages of one cursor below a place are settled, without being counted as consumed.
    fn purge(&mut self, cursor: CursorId, below: u64) {
        self.move_cursor(cursor, below);
        let (page, place) = locate(below);
        self.change_page(cursor, page, |page| page.settle_range(0..place));
    }

    /// A cursor as the broker opens it.
    pub(crate) fn cursor_snapshot(&self, cursor: CursorId) -> Option<CursorSnapshot> {
        let image = self.cursors.get(&cursor)?;
        // Messages before have expired, or were sent before the group was created.
        let first = image.start.max(self.streams.get(&image.stream)?.low);
        let mut ready = Vec::new();
        for number in image.page.max(first / PAGE_MESSAGES)..image.head.div_ceil(PAGE_MESSAGES) {
            let untouched;
            let page = match self.pages.get(&(cursor, number)) {
                Some(page) => page,
                None => {
                    untouched = untouched_page(image.start, number);
                    &untouched
                }
            };
            let open = page.open().map(|(place, failures)| (number * PAGE_MESSAGES + u64::from(place), failures));
            ready.extend(open.filter(|(place, _)| (first..image.head).contains(place)));
        }
        Some(CursorSnapshot { head: image.head, consumed: image.consumed, ready, rule: image.rule.clone() })
    }
}

/// A page of which nothing was settled: the places before the cursor's first one do not concern it.
fn untouched_page(start: u64, number: u64) -> SettledPage {
    let mut page = SettledPage::default();
    let before = start.saturating_sub(number * PAGE_MESSAGES).min(PAGE_MESSAGES);
    page.settle_range(0..u16::try_from(before).unwrap_or(u16::MAX));
    page
}
