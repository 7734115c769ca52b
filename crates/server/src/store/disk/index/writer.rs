//! Takes the log into the index: one transaction for many commits. Rows that many commits change are written once, at its end.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use crate::{
    clock::whole_ms,
    store::{
        CursorId, GroupRow, QueueRow, Record, RetentionPolicy, ScheduleProgress, ScheduleRow, SentKeys, Settlement,
        StreamId,
        disk::{
            index::{
                error::{IndexError, IndexResult},
                lookup::id,
                rows::{self, CursorRow, StreamRow},
            },
            log::frame::Change,
            memtable::IndexBatch,
        },
        position::{Position, Run},
        settled_page::{PAGE_MESSAGES, SettledPage, locate},
    },
};
use dms_protocol::queue::{GroupId, QueueId, QueueTag};

/// The maximum number of pages kept in memory between transactions.
const MAX_CACHED_PAGES: usize = 4_096;

/// The only connection that writes, and a cache of the rows that it writes again and again.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) conn: Connection,
    // Rows as they are in the file, or will be at the end of the transaction.
    streams: BTreeMap<StreamId, StreamRow>,
    cursors: BTreeMap<CursorId, CursorRow>,
    pages: BTreeMap<(CursorId, u64), SettledPage>,
    dirty: DirtyRows,
    /// The position up to which the log is in the index.
    pub(crate) applied: Position,
}

/// The rows to write before the transaction ends.
#[derive(Debug, Default)]
struct DirtyRows {
    streams: BTreeSet<StreamId>,
    cursors: BTreeSet<CursorId>,
    pages: BTreeSet<(CursorId, u64)>,
    /// Bytes of runs that segments gained or lost.
    live: BTreeMap<u64, i64>,
}

impl Writer {
    pub(crate) fn new(conn: Connection, applied: Position) -> Self {
        let (streams, cursors, pages) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { conn, streams, cursors, pages, dirty: DirtyRows::default(), applied }
    }

    /// Takes in a batch, all or nothing.
    pub(crate) fn apply(&mut self, batch: &IndexBatch) -> IndexResult<()> {
        self.transact(|writer| {
            // The changes and the position that they reach are in one transaction: after a crash the replay starts exactly behind
            // them.
            batch.changes.iter().try_for_each(|change| writer.apply_one(change))?;
            let IndexBatch { end, number, .. } = batch;
            let position = params![end.segment, end.offset, number];
            writer.run(
                "UPDATE counter SET segment = ?1, offset = ?2, frame = ?3, \
                 sum = row_sum('counter', next_number, log, ?1, ?2, ?3)",
                position,
            )
        })?;
        self.applied = batch.end;
        Ok(())
    }

    /// Runs one transaction. After an error none of its changes remains.
    pub(crate) fn transact<T>(&mut self, change: impl FnOnce(&mut Self) -> IndexResult<T>) -> IndexResult<T> {
        // Takes the write lock at once, so that the transaction cannot fail halfway because a reader upgraded.
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let done = change(self).and_then(|changed| {
            // Rows that many changes touch are written once, here.
            self.flush()?;
            Ok(self.conn.execute_batch("COMMIT").map(|()| changed)?)
        });
        self.dirty = DirtyRows::default();
        if done.is_err() {
            // The cached rows contain changes that were rolled back.
            self.forget();
            // SQLite may have rolled back already; then this fails, and nothing is left to do.
            let _ = self.conn.execute_batch("ROLLBACK");
        } else if self.pages.len() > MAX_CACHED_PAGES {
            // All at once: after a commit no page has changes, so any of them can be read from the file again.
            self.pages.clear();
        }
        done
    }

    /// Forgets cached rows, which may differ from the file after an error.
    fn forget(&mut self) {
        self.streams.clear();
        self.cursors.clear();
        self.pages.clear();
    }

    pub(crate) fn apply_one(&mut self, change: &Change) -> IndexResult<()> {
        match change {
            Change::Appended(run, newest) => {
                self.insert(run)?;
                let image = self.stream(run.stream)?;
                image.next = run.end();
                image.newest = image.newest.max(*newest);
                Ok(())
            }
            Change::Delayed(run, due_ms) => {
                self.insert(run)?;
                self.run(
                    "INSERT INTO due VALUES (?1, ?2, ?3, row_sum('due', ?1, ?2, ?3))",
                    params![run.stream.0, due_ms, run.first],
                )?;
                let image = self.stream(run.stream)?;
                image.next = run.end();
                image.delayed += 1;
                Ok(())
            }
            Change::Moved(run) => self.relocate(run),
            Change::Other(record) => self.apply_record(record),
        }
    }

    fn apply_record(&mut self, record: &Record) -> IndexResult<()> {
        match record {
            Record::QueueCreated(row) => self.create_queue(row),
            Record::QueueDeleted(queue) => self.delete_queue(queue),
            Record::GroupCreated(row) => self.create_group(row),
            Record::GroupDeleted(_, group) => self.delete_group(group),
            Record::TagsSet(queue, tags) => self.set_tags(queue, tags),
            Record::RuleFixed(cursor, rule) => {
                let rule = json(rule)?;
                self.run(
                    "UPDATE readers SET rule = ?2, \
                     sum = row_sum('readers', number, stream, start, head, page, consumed, ?2) WHERE number = ?1",
                    params![cursor.0, rule],
                )
            }
            Record::DelayEnded(delay_queue, due_ms, place) => {
                let id = id(*delay_queue, *place);
                self.delete_weighed("id BETWEEN ?1 AND ?2", [id, id])?;
                let due = params![delay_queue.0, due_ms, place];
                self.run("DELETE FROM due WHERE lot = ?1 AND due_ms = ?2 AND place = ?3", due)?;
                let image = self.stream(*delay_queue)?;
                image.delayed = image.delayed.saturating_sub(1);
                Ok(())
            }
            Record::Settled { cursor, settlement, .. } => self.settle(*cursor, settlement),
            Record::Expired { stream, low, .. } => self.expire(*stream, *low),
            Record::GivenUp => Ok(()),
            Record::RetentionSet(queue, policy) => self.set_retention(queue, *policy),
            Record::KeysSent { now_ms, keys } => self.add_keys(*now_ms, keys),
            Record::QueueChanged(row) => self.run(
                "UPDATE queues SET description = ?2, max_consume_count = ?3, \
                 sum = row_sum('queues', number, id, project, name, mode, ?2, ?3, retention_hours, created_ms) WHERE number = ?1",
                params![row.number, row.description, row.max_consume_count],
            ),
            Record::ScheduleSet { queue, row, progress } => self.set_schedule(queue, row, progress),
            Record::ScheduleRemoved(queue, name) => {
                self.run("DELETE FROM schedules WHERE queue = ?1 AND name = ?2", params![queue.as_str(), name])
            }
            Record::ScheduleTicked { queue, name, progress } => self.run(
                "UPDATE schedules SET progress = ?3, sum = row_sum('schedules', queue, name, facts, ?3) \
                 WHERE queue = ?1 AND name = ?2",
                params![queue.as_str(), name, json(progress)?],
            ),
            Record::Purged { cursor, below } => self.purge(*cursor, *below),
            Record::DelayQueuePurged { delay_queue, below } => self.empty(*delay_queue, *below),
            Record::Appended(stream, _) | Record::Delayed(stream, _) => {
                Err(IndexError::Contradiction(format!("messages of stream {} are not in a run", stream.0)))
            }
        }
    }

    fn insert(&mut self, run: &Run) -> IndexResult<()> {
        let Position { segment, offset } = run.at;
        let row = params![id(run.stream, run.first), run.count, segment, offset, run.bytes];
        self.run("INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, row_sum('runs', ?1, ?2, ?3, ?4, ?5))", row)?;
        self.add_live_bytes(segment, i64::from(run.bytes));
        Ok(())
    }

    /// Records the new position of a run. A run that was deleted meanwhile stays deleted.
    fn relocate(&mut self, run: &Run) -> IndexResult<()> {
        let id = id(run.stream, run.first);
        let segment = |row: &rusqlite::Row<'_>| row.get::<_, u64>(0);
        let before = self
            .conn
            .prepare_cached("SELECT segment FROM runs WHERE id = ?1 AND count = ?2")?
            .query_row(params![id, run.count], segment)
            .optional()?;
        // It was deleted between the copy and this transaction.
        let Some(before) = before else { return Ok(()) };
        let Position { segment, offset } = run.at;
        self.run(
            "UPDATE runs SET segment = ?2, offset = ?3, bytes = ?5, sum = row_sum('runs', ?1, ?4, ?2, ?3, ?5) WHERE id = ?1",
            params![id, segment, offset, run.count, run.bytes],
        )?;
        // Both segments change: the old one may be deleted once nothing in it is live, the new one must not be.
        self.add_live_bytes(before, -i64::from(run.bytes));
        self.add_live_bytes(segment, i64::from(run.bytes));
        Ok(())
    }

    /// Deletes the runs that a condition on `?1` and `?2` chooses, and returns how many. Their bytes are summed up by segment inside
    /// SQLite, because there may be millions of them.
    pub(crate) fn delete_weighed(&mut self, which: &str, range: [i64; 2]) -> IndexResult<usize> {
        let weights = format!("SELECT segment, sum(bytes) FROM runs WHERE {which} GROUP BY segment");
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?));
        let weights: Vec<(u64, i64)> =
            self.conn.prepare_cached(&weights)?.query_map(range, row)?.collect::<Result<_, rusqlite::Error>>()?;
        // Summed up before the deletion, because the sizes are in the deleted rows.
        weights.iter().for_each(|(segment, bytes)| self.add_live_bytes(*segment, -bytes));
        Ok(self.conn.prepare_cached(&format!("DELETE FROM runs WHERE {which}"))?.execute(range)?)
    }

    pub(crate) fn add_live_bytes(&mut self, segment: u64, bytes: i64) {
        *self.dirty.live.entry(segment).or_default() += bytes;
    }

    fn create_queue(&mut self, row: &QueueRow) -> IndexResult<()> {
        self.run(
            "INSERT INTO queues VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, \
             row_sum('queues', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9))",
            params![
                row.number,
                row.id.as_str(),
                row.project.as_str(),
                row.name,
                row.mode.as_str(),
                row.description,
                row.max_consume_count,
                row.retention_hours,
                row.created_ms
            ],
        )?;
        self.create_stream(row.stream())?;
        self.create_stream(row.delay_queue())?;
        // A queue has two numbers: one for its stream, one for its delay queue.
        self.set_next_number(row.number + 2)
    }

    fn create_group(&mut self, row: &GroupRow) -> IndexResult<()> {
        let queue: u32 =
            self.conn
                .query_row("SELECT number FROM queues WHERE id = ?1", [row.queue.as_str()], |found| found.get(0))?;
        self.run(
            "INSERT INTO consumer_groups VALUES (?1, ?2, ?3, ?4, ?5, ?6, \
             row_sum('consumer_groups', ?1, ?2, ?3, ?4, ?5, ?6))",
            params![row.number, row.queue.as_str(), row.id.as_str(), row.name, row.created_ms, row.start],
        )?;
        self.create_stream(row.dead_letters())?;
        self.create_cursor(row.cursor(), StreamId(queue), row.start)?;
        self.create_cursor(row.dead_letter_cursor(), row.dead_letters(), 1)?;
        self.set_next_number(row.number + 2)
    }

    fn set_next_number(&self, number: u32) -> IndexResult<()> {
        let update = "UPDATE counter SET next_number = ?1, sum = row_sum('counter', ?1, log, segment, offset, frame)";
        self.run(update, [number])
    }

    fn create_stream(&mut self, stream: StreamId) -> IndexResult<()> {
        self.run("INSERT INTO streams VALUES (?1, 1, 1, 0, 0, row_sum('streams', ?1, 1, 1, 0, 0))", [stream.0])
    }

    fn create_cursor(&mut self, cursor: CursorId, stream: StreamId, start: u64) -> IndexResult<()> {
        let row = params![cursor.0, stream.0, start, start / PAGE_MESSAGES];
        self.run(
            "INSERT INTO readers VALUES (?1, ?2, ?3, ?3, ?4, 0, NULL, row_sum('readers', ?1, ?2, ?3, ?3, ?4, 0, NULL))",
            row,
        )
    }

    fn delete_queue(&mut self, queue: &QueueId) -> IndexResult<()> {
        let id = [queue.as_str()];
        let number: u32 = self.conn.query_row("SELECT number FROM queues WHERE id = ?1", id, |row| row.get(0))?;
        // Collected before their rows are deleted, because the streams and cursors of the groups are found by these
        // numbers.
        let groups: Vec<u32> = self
            .conn
            .prepare("SELECT number FROM consumer_groups WHERE queue = ?1")?
            .query_map(id, |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        self.run("DELETE FROM tags WHERE queue = ?1", id)?;
        self.run("DELETE FROM retention WHERE queue = ?1", id)?;
        self.run("DELETE FROM schedules WHERE queue = ?1", id)?;
        self.run("DELETE FROM consumer_groups WHERE queue = ?1", id)?;
        self.run("DELETE FROM queues WHERE id = ?1", id)?;
        groups.into_iter().chain([number]).try_for_each(|number| self.discard_pair(number))
    }

    fn delete_group(&mut self, group: &GroupId) -> IndexResult<()> {
        let id = [group.as_str()];
        let number: u32 =
            self.conn.query_row("SELECT number FROM consumer_groups WHERE id = ?1", id, |row| row.get(0))?;
        self.run("DELETE FROM consumer_groups WHERE id = ?1", id)?;
        self.discard_pair(number)
    }

    /// Deletes the streams and cursors of an owner. Their messages and pages are deleted in the background.
    fn discard_pair(&mut self, number: u32) -> IndexResult<()> {
        for number in [number, number + 1] {
            // The cache must not write the rows again at the end of the transaction.
            self.streams.remove(&StreamId(number));
            self.cursors.remove(&CursorId(number));
            self.pages.retain(|(cursor, _), _| cursor.0 != number);
            self.run("DELETE FROM streams WHERE number = ?1", [number])?;
            self.run("DELETE FROM readers WHERE number = ?1", [number])?;
            // Their runs and pages may be millions of rows, which `sweep` deletes in several transactions.
            self.run("INSERT INTO garbage VALUES (?1, row_sum('garbage', ?1))", [number])?;
        }
        Ok(())
    }

    fn set_tags(&mut self, queue: &QueueId, tags: &[QueueTag]) -> IndexResult<()> {
        self.run("DELETE FROM tags WHERE queue = ?1", [queue.as_str()])?;
        for (position, tag) in tags.iter().enumerate() {
            let row = params![queue.as_str(), position, tag.key, tag.value];
            self.run("INSERT INTO tags VALUES (?1, ?2, ?3, ?4, row_sum('tags', ?1, ?2, ?3, ?4))", row)?;
        }
        Ok(())
    }

    fn set_retention(&mut self, queue: &QueueId, policy: RetentionPolicy) -> IndexResult<()> {
        let row = params![queue.as_str(), policy.retention.map(whole_ms), policy.delete_when_settled];
        self.run("INSERT OR REPLACE INTO retention VALUES (?1, ?2, ?3, row_sum('retention', ?1, ?2, ?3))", row)
    }

    fn set_schedule(
        &mut self,
        queue: &QueueId,
        schedule: &ScheduleRow,
        progress: &ScheduleProgress,
    ) -> IndexResult<()> {
        let row = params![queue.as_str(), schedule.name, json(schedule)?, json(progress)?];
        self.run("INSERT OR REPLACE INTO schedules VALUES (?1, ?2, ?3, ?4, row_sum('schedules', ?1, ?2, ?3, ?4))", row)
    }

    /// Adds a row for the keys of a commit. Nothing looks for a single key here, so they need no rows of their own.
    fn add_keys(&mut self, now_ms: i64, keys: &SentKeys) -> IndexResult<()> {
        // Done with each commit that has keys, so that the table stays small without separate maintenance.
        self.run("DELETE FROM sent_keys WHERE until_ms <= ?1", [now_ms])?;
        let row = params![keys.until_ms(), keys.to_bytes()];
        self.run("INSERT INTO sent_keys (until_ms, keys, sum) VALUES (?1, ?2, row_sum('sent_keys', ?1, ?2))", row)
    }

    fn settle(&mut self, number: CursorId, settlement: &Settlement) -> IndexResult<()> {
        let cursor = self.cursor(number)?;
        cursor.consumed += settlement.done.len() as u64 + settlement.counted;
        // Never backwards, because expiry and purges advance the head, too.
        cursor.head = cursor.head.max(settlement.head);
        for place in settlement.done.iter().chain(&settlement.dead) {
            let (page, place) = locate(*place);
            if let Some(page) = self.page(number, page)? {
                page.settle(place);
            }
        }
        for (place, failures) in &settlement.failed {
            let (page, place) = locate(*place);
            if let Some(page) = self.page(number, page)? {
                page.fail(place, *failures);
            }
        }
        for range in &settlement.skipped {
            let mut from = range.start;
            while from < range.end {
                let (number_of_page, first) = locate(from);
                let next = (number_of_page + 1) * PAGE_MESSAGES;
                let last = if range.end < next { locate(range.end).1 } else { 1_024 };
                if let Some(page) = self.page(number, number_of_page)? {
                    page.settle_range(first..last);
                }
                from = next;
            }
        }
        Ok(())
    }

    fn expire(&mut self, stream: StreamId, low: u64) -> IndexResult<()> {
        self.delete_runs_below(stream, low)?;
        let image = self.stream(stream)?;
        image.low = image.low.max(low);
        let cursors: Vec<u32> = self
            .conn
            .prepare_cached("SELECT number FROM readers WHERE stream = ?1")?
            .query_map([stream.0], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        // Otherwise the pages of expired messages would stay in the index, because nothing settles them any more.
        for number in cursors.into_iter().map(CursorId) {
            self.advance_cursor(number, low)?;
        }
        Ok(())
    }

    /// Advances a cursor to `place`, and deletes its pages of messages before that.
    fn advance_cursor(&mut self, number: CursorId, place: u64) -> IndexResult<()> {
        let cursor = self.cursor(number)?;
        cursor.head = cursor.head.max(place);
        cursor.page = cursor.page.max(place / PAGE_MESSAGES);
        let first = cursor.page;
        self.run("DELETE FROM settled WHERE reader = ?1 AND page < ?2", params![number.0, first])?;
        self.pages.retain(|(cursor, page), _| *cursor != number || *page >= first);
        // Deleted pages must not be written again at the end of the transaction.
        self.dirty.pages.retain(|(cursor, page)| *cursor != number || *page >= first);
        Ok(())
    }

    fn purge(&mut self, number: CursorId, below: u64) -> IndexResult<()> {
        self.advance_cursor(number, below)?;
        // The page at the border was not deleted. Its first part is settled.
        let (page, place) = locate(below);
        if let Some(page) = self.page(number, page)? {
            page.settle_range(0..place);
        }
        Ok(())
    }

    fn empty(&mut self, delay_queue: StreamId, below: u64) -> IndexResult<()> {
        self.delete_runs_below(delay_queue, below)?;
        let mut delete = self.conn.prepare_cached("DELETE FROM due WHERE lot = ?1 AND place < ?2")?;
        let gone = delete.execute(params![delay_queue.0, below])? as u64;
        drop(delete);
        let image = self.stream(delay_queue)?;
        image.delayed = image.delayed.saturating_sub(gone);
        Ok(())
    }

    /// Deletes the runs of a stream below a sequence number. A run that contains later messages stays until its last message goes.
    fn delete_runs_below(&mut self, stream: StreamId, place: u64) -> IndexResult<()> {
        let range = [id(stream, 0), id(stream, place)];
        self.delete_weighed("id >= ?1 AND id < ?2 AND id + count <= ?2", range).map(drop)
    }

    /// Writes the rows that were changed. Pages at the front of a cursor that are completely settled are deleted.
    fn flush(&mut self) -> IndexResult<()> {
        for (segment, bytes) in std::mem::take(&mut self.dirty.live) {
            let row = params![segment, bytes];
            self.run(
                "INSERT INTO segments VALUES (?1, ?2, row_sum('segments', ?1, ?2)) \
                 ON CONFLICT DO UPDATE SET live = live + ?2, sum = row_sum('segments', number, live + ?2)",
                row,
            )?;
        }
        // Pages before cursors: a page that has become full advances its cursor, whose row is then written below.
        for (cursor, page) in std::mem::take(&mut self.dirty.pages) {
            let (bits, failures) = match self.pages.get(&(cursor, page)) {
                Some(page) => page.encode(),
                None => continue,
            };
            let row = params![cursor.0, page, bits, failures];
            self.run(
                "INSERT OR REPLACE INTO settled VALUES (?1, ?2, ?3, ?4, row_sum('settled', ?1, ?2, ?3, ?4))",
                row,
            )?;
            if self.cursor(cursor)?.page == page {
                self.pass_full_pages(cursor)?;
            }
        }
        for stream in std::mem::take(&mut self.dirty.streams) {
            if let Some(StreamRow { low, next, newest, delayed }) = self.streams.get(&stream) {
                let row = params![stream.0, low, next, newest, delayed];
                let update = "UPDATE streams SET low = ?2, next = ?3, newest = ?4, parked = ?5, \
                              sum = row_sum('streams', ?1, ?2, ?3, ?4, ?5) WHERE number = ?1";
                self.run(update, row)?;
            }
        }
        for cursor in std::mem::take(&mut self.dirty.cursors) {
            if let Some(CursorRow { head, page, consumed, .. }) = self.cursors.get(&cursor) {
                let row = params![cursor.0, head, page, consumed];
                self.run(
                    "UPDATE readers SET head = ?2, page = ?3, consumed = ?4, \
                     sum = row_sum('readers', number, stream, start, ?2, ?3, ?4, rule) WHERE number = ?1",
                    row,
                )?;
            }
        }
        Ok(())
    }

    fn pass_full_pages(&mut self, number: CursorId) -> IndexResult<()> {
        // Later pages may be full already, and only waited for this one.
        loop {
            let image = *self.cursor(number)?;
            let first = (number, image.page);
            let full = match self.pages.get(&first) {
                Some(page) => page.is_full(),
                None => rows::page(&self.conn, number, &image, image.page)?.is_full(),
            };
            if !full {
                return Ok(());
            }
            self.run("DELETE FROM settled WHERE reader = ?1 AND page = ?2", params![number.0, image.page])?;
            self.pages.remove(&first);
            self.cursor(number)?.page += 1;
        }
    }

    /// The row of a stream, to be changed.
    fn stream(&mut self, number: StreamId) -> IndexResult<&mut StreamRow> {
        self.dirty.streams.insert(number);
        if !self.streams.contains_key(&number) {
            let image = rows::stream_row(&self.conn, number)?;
            self.streams.insert(number, image);
        }
        self.streams.get_mut(&number).ok_or_else(|| IndexError::Contradiction(format!("no stream {}", number.0)))
    }

    /// The row of a cursor, to be changed.
    fn cursor(&mut self, number: CursorId) -> IndexResult<&mut CursorRow> {
        self.dirty.cursors.insert(number);
        if !self.cursors.contains_key(&number) {
            let image = rows::cursor_row(&self.conn, number)?;
            self.cursors.insert(number, image);
        }
        self.cursors.get_mut(&number).ok_or_else(|| IndexError::Contradiction(format!("no reader {}", number.0)))
    }

    /// A page, to be changed. `None` if all of it is settled or expired.
    fn page(&mut self, number: CursorId, page: u64) -> IndexResult<Option<&mut SettledPage>> {
        let image = *self.cursor(number)?;
        if page < image.page {
            return Ok(None);
        }
        let key = (number, page);
        self.dirty.pages.insert(key);
        if !self.pages.contains_key(&key) {
            let loaded = rows::page(&self.conn, number, &image, page)?;
            self.pages.insert(key, loaded);
        }
        Ok(self.pages.get_mut(&key))
    }

    pub(crate) fn run(&self, sql: &str, values: impl rusqlite::Params) -> IndexResult<()> {
        // A batch repeats a few statements thousands of times, so each is compiled once.
        self.conn.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// The text of a value that is stored as JSON.
fn json(value: &impl Serialize) -> IndexResult<String> {
    serde_json::to_string(value).map_err(|error| IndexError::Contradiction(error.to_string()))
}
