//! Rebuilds the index from the log, after it was damaged or lost.
//!
//! The log contains every change, but its first segments are deleted when their messages have expired. While all of them exist, the
//! new index equals the old one. Later it starts with the intact rows of the old index: queues, groups, cursors and acknowledgements
//! that match their checksums. Where messages are is always read from the log.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde::Serialize;

use crate::store::{
    OpenError, Record, Store, StreamId,
    disk::{
        DiskStore,
        file_ops::{self, pread},
        index::{
            checksums,
            error::{IndexError, IndexResult},
            lookup,
            open::{connect, explain, refuse_newer},
            rows::stream_row,
            schema,
            writer::Writer,
        },
        layout::{DATABASE, LOG},
        log::{
            damaged_frame,
            file_cache::{FileCache, ReadError},
            frame::{self, Change},
            frame_reader::FrameReader,
            segment::{LogDirectory, SEGMENT_HEADER},
        },
        memtable::IndexBatch,
        open::{DataDir, require_data_directory},
        tools::error::RepairError,
    },
    position::{Position, Run},
};

/// The result of a rebuild.
#[derive(Debug, Default, Serialize)]
pub struct Rebuilt {
    /// The new path of the old index.
    pub old: Option<PathBuf>,
    /// Whether the new index has everything that the old one had.
    pub complete: bool,
    /// The number of commits that were read.
    pub commits: u64,
    /// The number of places in the log that could not be read. Their changes are unknown.
    pub unreadable: u64,
    /// The number of messages whose queue or group is unknown.
    pub unknown_messages: u64,
    /// The number of queues and groups in the new index.
    pub queues: usize,
    pub groups: usize,
}

/// Rebuilds the index of a directory. The old one is kept beside it.
pub fn rebuild(dir: &Path) -> Result<Rebuilt, RepairError> {
    require_data_directory(dir)?;
    if !dir.join(LOG).is_dir() {
        return Err(OpenError::Absent { dir: dir.to_owned(), found: "has no log to rebuild the index from" }.into());
    }
    // Held until the new index is complete, and taken again by the store that opens it.
    let mut held = DataDir::lock(dir)?;
    held.lock_log_directory()?;
    if dir.join(DATABASE).exists() {
        refuse_newer(&dir.join(DATABASE))?;
    }
    let failed = |source| RepairError::File { path: dir.to_owned(), source };
    let log = log_number(dir).map_err(failed)?;
    let directory = LogDirectory { path: dir.join(LOG), log };
    let segments = directory.segments().map_err(failed)?;
    let first = *segments.first().ok_or_else(|| RepairError::Impossible("the log has no files".to_owned()))?;
    // Renamed and not deleted: if the rebuild fails, it is put back.
    let old = set_old_aside(dir).map_err(failed)?;
    let made = make(dir, &directory, first, old.as_deref());
    drop(held);
    let opened = made.map_err(RepairError::from).and_then(|rebuilt| Ok((rebuilt, DiskStore::open(dir)?)));
    match opened {
        Ok((rebuilt, (store, snapshot))) => {
            store.release(true).map_err(|error| RepairError::Impossible(error.to_string()))?;
            let (queues, groups) = (snapshot.queues.len(), snapshot.groups.len());
            Ok(Rebuilt { old, queues, groups, ..rebuilt })
        }
        Err(error) => {
            // The directory is as it was, and the operator can try something else.
            put_back(dir, old.as_deref()).map_err(failed)?;
            Err(error)
        }
    }
}

/// The number of the log, as its segments say.
fn log_number(dir: &Path) -> io::Result<u32> {
    let probe = LogDirectory { path: dir.join(LOG), log: 0 };
    let mut count = BTreeMap::<u32, usize>::new();
    for segment in probe.segments()? {
        let mut number = [0; 4];
        if pread::read(&std::fs::File::open(probe.file(segment))?, &mut number, 8).is_ok() {
            *count.entry(u32::from_le_bytes(number)).or_default() += 1;
        }
    }
    // The number of most segments, because one of them may be damaged.
    let most = count.into_iter().max_by_key(|(_, files)| *files);
    most.map(|(number, _)| number).ok_or_else(|| io::Error::other("the log has no files"))
}

fn names(old: &Path) -> [(PathBuf, &'static str); 2] {
    [(old.to_owned(), DATABASE), (PathBuf::from(format!("{}-wal", old.display())), "dms.db-wal")]
}

/// Renames the old index. Returns its new path if there was one.
fn set_old_aside(dir: &Path) -> io::Result<Option<PathBuf>> {
    let free = (1..).map(|number| dir.join(format!("{DATABASE}.old-{number}"))).find(|path| !path.exists());
    let old = free.unwrap_or_else(|| dir.join("dms.db.old"));
    let there = dir.join(DATABASE).exists();
    // The write-ahead log has the latest transactions of the database, so both are kept. SQLite makes the third file again.
    for (to, from) in names(&old) {
        rename_if_there(&dir.join(from), &to)?;
    }
    remove_if_there(&dir.join("dms.db-shm"))?;
    Ok(there.then_some(old))
}

fn put_back(dir: &Path, old: Option<&Path>) -> io::Result<()> {
    // SQLite must not apply a write-ahead log of the failed rebuild to the old database.
    for name in [DATABASE, "dms.db-wal", "dms.db-shm"] {
        remove_if_there(&dir.join(name))?;
    }
    let Some(old) = old else { return Ok(()) };
    names(old).into_iter().try_for_each(|(from, to)| rename_if_there(&from, &dir.join(to)))
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make(dir: &Path, directory: &LogDirectory, first: u64, old: Option<&Path>) -> Result<Rebuilt, OpenError> {
    let file = dir.join(DATABASE);
    let explain = |error: IndexError| match error {
        // An error of SQLite, for example a full disk, need not be damage.
        IndexError::Sqlite(error) => explain(&file, &error),
        error => OpenError::Damaged { file: file.clone(), reason: error.to_string() },
    };
    let conn = begin(dir, directory.log).map_err(|error| explain(error.into()))?;
    // While the log is complete it is the better source.
    let base = match old.filter(|_| first > 1) {
        Some(old) => OldIndex::take(&conn, old).map_err(|error| explain(error.into()))?,
        None => OldIndex::default(),
    };
    let writer = Writer::new(conn, Position { segment: first, offset: SEGMENT_HEADER });
    let complete = first == 1 || base.whole_until.is_some();
    let files = FileCache::of(directory.clone());
    let mut reading = Rebuild { files, writer, base, rebuilt: Rebuilt { complete, ..Rebuilt::default() } };
    reading.run().map_err(explain)?;
    reading.rebuilt.complete &= reading.rebuilt.unreadable == 0;
    Ok(reading.rebuilt)
}

/// Creates an index for this log.
fn begin(dir: &Path, log: u32) -> rusqlite::Result<Connection> {
    let file = dir.join(DATABASE);
    // Only this user may read it. SQLite takes an empty file for a new database.
    let made = file_ops::create(&file);
    made.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let mut conn = connect(&file)?;
    schema::migrate(&mut conn, 0)?;
    conn.execute("UPDATE counter SET log = ?1", [log])?;
    checksums::fill(&conn)?;
    Ok(conn)
}

/// The part of the old index that is taken over.
#[derive(Debug, Default)]
struct OldIndex {
    /// If all of it is intact: the number of the first commit that it does not contain.
    whole_until: Option<u64>,
    /// The ends of the streams.
    next: BTreeMap<StreamId, u64>,
}

impl OldIndex {
    fn take(conn: &Connection, old: &Path) -> rusqlite::Result<Self> {
        conn.execute("ATTACH ?1 AS old", [old.to_string_lossy()])?;
        // With a separate connection, because the totals of the attached database are not in the main one.
        let whole = Connection::open(old).and_then(|old| {
            checksums::register(&old)?;
            checksums::small_are_whole(&old)
        });
        let mut base = Self::default();
        if whole.unwrap_or(false) {
            let frame = "SELECT frame FROM old.counter";
            base.whole_until = conn.query_row(frame, [], |row| row.get(0)).ok();
        }
        for (table, columns) in checksums::TAKEN_OVER {
            let rows = format!("SELECT * FROM old.{table} WHERE sum IS row_sum('{table}', {columns})");
            // A table that cannot be read is not taken over.
            let _ = conn.execute(&format!("INSERT OR IGNORE INTO {table} {rows}"), []);
        }
        // Counted again at the end, because the rows of delayed messages are not taken over but read from the log.
        conn.execute("UPDATE streams SET parked = 0", [])?;
        let mut next = conn.prepare("SELECT number, next FROM streams")?;
        let rows = next.query_map([], |row| Ok((StreamId(row.get(0)?), row.get(1)?)))?;
        base.next = rows.collect::<rusqlite::Result<_>>()?;
        drop(next);
        // Above every number that was ever given, as far as that is known. A number that is given twice would mix two streams.
        let highest = "SELECT max(1, coalesce((SELECT max(number) + 2 FROM queues), 1), \
                       coalesce((SELECT max(number) + 2 FROM consumer_groups), 1), \
                       coalesce((SELECT next_number FROM old.counter WHERE sum IS row_sum('counter', next_number, log, segment, offset, frame)), 1))";
        let highest = conn.query_row(highest, [], |row| row.get::<_, u32>(0)).unwrap_or(1);
        conn.execute("UPDATE counter SET next_number = ?1", [highest])?;
        conn.execute("DETACH old", [])?;
        checksums::fill(conn)?;
        Ok(base)
    }
}

/// The state of a rebuild.
struct Rebuild {
    files: FileCache,
    writer: Writer,
    base: OldIndex,
    rebuilt: Rebuilt,
}

impl Rebuild {
    fn run(&mut self) -> IndexResult<()> {
        let directory = self.files.directory.clone();
        let mut batch = IndexBatch { changes: Vec::new(), end: self.writer.applied, number: 0 };
        for segment in directory.segments().map_err(ReadError::Io)? {
            if directory.is_missing_or_unfinished(segment).map_err(ReadError::Io)? {
                continue;
            }
            let Ok(file) = directory.open(segment) else {
                self.rebuilt.unreadable += 1;
                continue;
            };
            let mut frames = FrameReader::from(&file, directory.log, SEGMENT_HEADER).map_err(ReadError::Io)?;
            while let Some((number, changes)) = self.next(&mut frames, segment, batch.number)? {
                batch.end = Position { segment, offset: frames.offset };
                batch.number = number + 1;
                self.rebuilt.commits += 1;
                self.take(number, &changes)?;
            }
        }
        self.finish(&batch)
    }

    /// The next frame that can be read, with its number.
    fn next(
        &mut self,
        frames: &mut FrameReader<'_>,
        segment: u64,
        expected: u64,
    ) -> IndexResult<Option<(u64, Vec<Change>)>> {
        let log = self.files.directory.log;
        loop {
            let at = Position { segment, offset: frames.offset };
            if let Some((head, items, _)) = frames.next().map_err(ReadError::Io)? {
                let changes = frame::changes(log, &items, at);
                return Ok(Some((head.number, changes.map_err(|error| IndexError::Contradiction(error.to_string()))?)));
            }
            let next = frames.next_whole(at.offset).map_err(ReadError::Io)?;
            if next.is_none() && frames.is_unwritten(at.offset).map_err(ReadError::Io)? {
                return Ok(None);
            }
            let bytes = frames.bytes_until(at.offset, next).map_err(ReadError::Io)?;
            if let Some(mended) = damaged_frame::read(log, expected.max(1), &bytes, at) {
                frames.offset += mended.length as u64;
                return Ok(Some((expected.max(1), mended.changes)));
            }
            self.rebuilt.unreadable += 1;
            let Some(next) = next else { return Ok(None) };
            frames.offset = next;
        }
    }

    /// Takes in the changes of one frame.
    fn take(&mut self, number: u64, changes: &[Change]) -> IndexResult<()> {
        let Self { writer, base, rebuilt, files } = self;
        let known = base.whole_until.is_some_and(|until| number < until);
        writer.transact(|writer| {
            changes.iter().try_for_each(|change| {
                if let Some(change) = fitting(&writer.conn, files, change, known, rebuilt)? {
                    writer.apply_one(&change)?;
                }
                Ok(())
            })
        })
    }

    /// Completes the index at the end of the log.
    fn finish(&mut self, batch: &IndexBatch) -> IndexResult<()> {
        self.writer.apply(batch)?;
        let conn = &self.writer.conn;
        // The last messages of a stream may have been in a deleted segment. Their sequence numbers must not be given again.
        for (stream, next) in &self.base.next {
            conn.execute("UPDATE streams SET next = max(next, ?2) WHERE number = ?1", (stream.0, next))?;
        }
        conn.execute("UPDATE streams SET parked = (SELECT count(*) FROM due WHERE lot = number)", [])?;
        checksums::fill(conn)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

/// A change as the new index can take it. `None` if it has the change already, or does not know its stream.
fn fitting(
    conn: &Connection,
    files: &FileCache,
    change: &Change,
    known: bool,
    rebuilt: &mut Rebuilt,
) -> IndexResult<Option<Change>> {
    let low = |stream: StreamId| stream_row(conn, stream).ok().map(|image| image.low);
    Ok(match change {
        Change::Appended(run, _) | Change::Delayed(run, _) => match low(run.stream) {
            None => {
                rebuilt.unknown_messages += u64::from(run.count);
                None
            }
            Some(low) => (run.end() > low).then(|| change.clone()),
        },
        Change::Moved(run) => match low(run.stream) {
            Some(low) if run.end() > low => Some(moved(conn, files, run)?),
            _ => None,
        },
        Change::Other(record) => is_fitting(conn, record, known)?.then(|| change.clone()),
    })
}

/// A run that was moved from a deleted segment is new to this index.
fn moved(conn: &Connection, files: &FileCache, run: &Run) -> IndexResult<Change> {
    if lookup::run_with(conn, run.stream, run.first)?.is_some_and(|found| found.first == run.first) {
        return Ok(Change::Moved(*run));
    }
    let time = files.read(run)?.times().into_iter().rev().find_map(|(_, time)| time).unwrap_or(0);
    let is_delay_queue = lookup::extent(conn, run.stream)?.is_none();
    Ok(if is_delay_queue { Change::Delayed(*run, time) } else { Change::Appended(*run, time) })
}

fn is_fitting(conn: &Connection, record: &Record, known: bool) -> rusqlite::Result<bool> {
    let has = |sql: &str, value: &dyn rusqlite::ToSql| conn.prepare_cached(sql)?.exists([value]);
    let stream = |number: &StreamId| has("SELECT 1 FROM streams WHERE number = ?1", &number.0);
    let queue = |id: &str| has("SELECT 1 FROM queues WHERE id = ?1", &id);
    let group = |id: &str| has("SELECT 1 FROM consumer_groups WHERE id = ?1", &id);
    match record {
        Record::DelayEnded(delay_queue, ..) | Record::DelayQueuePurged { delay_queue, .. } => stream(delay_queue),
        Record::Expired { stream: number, .. } => stream(number),
        // The rows that were taken over contain this commit.
        _ if known => Ok(false),
        Record::QueueCreated(row) => Ok(!queue(row.id.as_str())?),
        Record::QueueChanged(row) => queue(row.id.as_str()),
        Record::QueueDeleted(id) | Record::TagsSet(id, _) | Record::RetentionSet(id, _) => queue(id.as_str()),
        Record::ScheduleSet { queue: id, .. }
        | Record::ScheduleRemoved(id, _)
        | Record::ScheduleTicked { queue: id, .. } => queue(id.as_str()),
        Record::GroupCreated(row) => Ok(queue(row.queue.as_str())? && !group(row.id.as_str())?),
        Record::GroupDeleted(_, id) => group(id.as_str()),
        Record::RuleFixed(cursor, _) | Record::Settled { cursor, .. } | Record::Purged { cursor, .. } => {
            has("SELECT 1 FROM readers WHERE number = ?1", &cursor.0)
        }
        // Later windows win over earlier ones, so a key may be added again.
        Record::GivenUp | Record::KeysSent { .. } => Ok(true),
        Record::Appended(..) | Record::Delayed(..) => Ok(false),
    }
}
