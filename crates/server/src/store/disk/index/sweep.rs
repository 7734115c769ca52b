//! Deletes the rows of deleted queues and groups, and finds segments that are empty or nearly so.

use rusqlite::{OptionalExtension, params};

use crate::store::{
    StreamId,
    disk::index::{
        error::{IndexError, IndexResult},
        lookup::id,
        writer::Writer,
    },
};

/// The maximum number of rows that one step deletes from each table. It takes some tens of milliseconds, during which the memtable
/// is not flushed.
const STEP_ROWS: usize = 10_000;

impl Writer {
    /// Deletes a bounded number of rows of deleted queues and groups. Returns whether there may be more.
    pub(crate) fn sweep(&mut self) -> IndexResult<bool> {
        let first = "SELECT number FROM garbage LIMIT 1";
        let first = self.conn.prepare_cached(first)?.query_row([], |row| row.get(0)).optional()?;
        let Some(number): Option<u32> = first else { return Ok(false) };
        // One bounded transaction for each step, so that the memtable can be flushed in between.
        self.transact(|writer| writer.sweep_one(number))?;
        Ok(true)
    }

    fn sweep_one(&mut self, number: u32) -> IndexResult<()> {
        let mut deleted = self.delete_first_runs(number)?;
        let steps = [
            "DELETE FROM due WHERE lot = ?1 AND (due_ms, place) IN \
             (SELECT due_ms, place FROM due WHERE lot = ?1 LIMIT ?2)",
            "DELETE FROM settled WHERE reader = ?1 AND page IN (SELECT page FROM settled WHERE reader = ?1 LIMIT ?2)",
        ];
        for step in steps {
            deleted += self.conn.prepare_cached(step)?.execute(params![number, STEP_ROWS])?;
        }
        // Nothing is left to delete, so the number can be forgotten.
        if deleted == 0 {
            self.run("DELETE FROM garbage WHERE number = ?1", [number])?;
        }
        Ok(())
    }

    /// Deletes the first runs of a stream, and returns how many.
    fn delete_first_runs(&mut self, stream: u32) -> IndexResult<usize> {
        let last = "SELECT max(id) FROM (SELECT id FROM runs WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)";
        let (first, end) = (id(StreamId(stream), 0), id(StreamId(stream + 1), 0));
        let last: Option<i64> =
            self.conn.prepare_cached(last)?.query_row(params![first, end, STEP_ROWS], |row| row.get(0))?;
        let Some(last) = last else { return Ok(0) };
        self.delete_weighed("id BETWEEN ?1 AND ?2", [first, last])
    }

    /// The segments before `segment` that contain live runs.
    pub(crate) fn segments_in_use(&self, before: u64) -> IndexResult<Vec<u64>> {
        let mut select =
            self.conn.prepare_cached("SELECT number FROM segments WHERE number < ?1 AND live > 0 ORDER BY number")?;
        Ok(select.query_map([before], |row| row.get(0))?.collect::<Result<_, rusqlite::Error>>()?)
    }

    /// Whether a segment before `segment` has lost its last run.
    pub(crate) fn has_emptied_segments(&self, before: u64) -> IndexResult<bool> {
        let select = "SELECT 1 FROM segments WHERE number < ?1 AND live <= 0";
        Ok(self.conn.prepare_cached(select)?.exists([before])?)
    }

    /// The bytes of live messages in a segment.
    pub(crate) fn bytes_in_use(&self, segment: u64) -> IndexResult<u64> {
        let mut select = self.conn.prepare_cached("SELECT live FROM segments WHERE number = ?1")?;
        let live: Option<i64> = select.query_row([segment], |row| row.get(0)).optional()?;
        Ok(live.and_then(|live| u64::try_from(live).ok()).unwrap_or(0))
    }

    /// The segment before `segment` with the fewest live bytes, if those are less than `live`.
    pub(crate) fn emptiest_segment(&self, before: u64, live: u64) -> IndexResult<Option<u64>> {
        let select = "SELECT number FROM segments WHERE number < ?1 AND live > 0 AND live < ?2 ORDER BY live LIMIT 1";
        let found = self.conn.prepare_cached(select)?.query_row([before, live], |row| row.get(0)).optional();
        Ok(found?)
    }

    /// Forgets segments before `segment` without runs, and brings the index to the disk. Only after that may their files be deleted,
    /// because until then a crash would restore the index from them.
    pub(crate) fn forget_segments(&mut self, before: u64) -> IndexResult<()> {
        self.transact(|writer| writer.run("DELETE FROM segments WHERE number < ?1 AND live <= 0", [before]))?;
        self.copy_log("FULL")
    }

    /// Copies SQLite's write-ahead log into the database and truncates it.
    pub(crate) fn end(&self) -> IndexResult<()> {
        self.copy_log("TRUNCATE")
    }

    fn copy_log(&self, how: &str) -> IndexResult<()> {
        let busy: bool = self.conn.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| row.get(0))?;
        // A reader held an old snapshot, so a part of the log could not be copied. The caller tries again.
        if busy { Err(IndexError::Contradiction("the index was being read for too long".to_owned())) } else { Ok(()) }
    }
}
