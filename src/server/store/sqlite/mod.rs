//! The store on disk: a SQLite database in write-ahead-log mode, one transaction for each commit, on the disk when the
//! commit returns.
//!
//! `open` guards the directory and the file, `schema` has the tables, `load` reads all but messages, `writer` writes
//! records, `page` is what is settled of a reader, `read` reads messages, and `tidy` does what nobody waits for.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rusqlite::Connection;

pub use self::open::OpenError;
use self::{load::LoadError, open::DataDir, writer::Writer};
use super::{ReadLimit, Record, Snapshot, Store, StoreError, Stored, StreamNo};
use crate::server::durations::Durations;

mod load;
mod open;
mod page;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod tidy;
mod writer;

/// How much may be written to the log before it is copied.
const LOG_BYTES: usize = 8 * 1024 * 1024;
/// How much of the log may be left to be copied while commits wait.
const SHORT_REST: usize = 1024 * 1024;
/// How often the log is copied before commits wait for the rest, however much it is.
const COPIES: usize = 6;
/// What a commit writes beside its messages, roughly: a few pages.
const COMMIT_BYTES: usize = 5 * 16_384;

/// Records in a SQLite database.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    writer: Mutex<Option<Writer>>,
    reader: Mutex<Option<Connection>>,
    /// Copies the log into the database without keeping commits waiting.
    checkpointer: Mutex<Option<Connection>>,
    /// The directory is ours while this is here.
    lock: Mutex<Option<DataDir>>,
    /// Whether there may be garbage.
    garbage: AtomicBool,
    /// Roughly how much was written to the log since it was copied.
    logged: AtomicUsize,
    /// Apart from the writer: looking at it waits for no commit.
    syncs: Mutex<Durations>,
}

impl SqliteStore {
    /// Opens a data directory, created if it is missing.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Snapshot), OpenError> {
        let mut lock = DataDir::lock(dir)?;
        let writer = lock.open_database()?;
        let file = lock.database();
        let reader = open::connect(&file).and_then(|reader| {
            reader.pragma_update(None, "query_only", true)?;
            reader.pragma_update(None, "cache_size", -4_096)?;
            Ok(reader)
        });
        let explain = |error: rusqlite::Error| open::explain(&file, &error);
        let reader = reader.map_err(explain)?;
        let checkpointer = open::connect(&file).map_err(explain)?;
        let snapshot = load::snapshot(&writer).map_err(|error| match error {
            LoadError::Sqlite(error) => open::explain(&file, &error),
            LoadError::Contradiction(reason) => OpenError::Damaged { file: file.clone(), reason },
        })?;
        let store = Self {
            writer: Mutex::new(Some(Writer::new(writer))),
            reader: Mutex::new(Some(reader)),
            checkpointer: Mutex::new(Some(checkpointer)),
            lock: Mutex::new(Some(lock)),
            garbage: AtomicBool::new(true),
            logged: AtomicUsize::new(0),
            syncs: Mutex::default(),
        };
        Ok((store, snapshot))
    }
}

#[cfg(test)]
impl SqliteStore {
    /// The database may have so many pages more than it has: what a disk that fills up looks like. `None` for no limit.
    pub(crate) fn leave_room_for(&self, pages: Option<u32>) -> Result<(), StoreError> {
        self.write(|writer| {
            let used: u32 = writer.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
            let most = pages.map_or(u32::MAX - 1, |pages| used + pages);
            Ok(writer.conn.query_row(&format!("PRAGMA max_page_count({most})"), [], |_| Ok(()))?)
        })
    }
}

impl SqliteStore {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match lock(&self.reader).as_ref() {
            Some(conn) => read(conn).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    fn write<T>(&self, write: impl FnOnce(&mut Writer) -> Result<T, LoadError>) -> Result<T, StoreError> {
        match lock(&self.writer).as_mut() {
            Some(writer) => write(writer).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    /// Copies the log into the database: nearly all of it while commits go on, the short rest between two of them.
    fn checkpoint(&self) -> Result<(), StoreError> {
        // What is logged while much is copied is less, and so on.
        for _ in 0..COPIES {
            let before = self.logged.load(Ordering::Relaxed);
            match lock(&self.checkpointer).as_ref() {
                Some(conn) => tidy::copy_log(conn).map_err(StoreError::new)?,
                None => return Err(released()),
            };
            if self.logged.load(Ordering::Relaxed) - before <= SHORT_REST {
                break;
            }
        }
        if self.write(|writer| Ok(tidy::copy_log(&writer.conn)?))? {
            self.logged.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Store for SqliteStore {
    fn blocks(&self) -> bool {
        true
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        let sync = self.write(|writer| writer.commit(records))?;
        lock(&self.syncs).record(sync);
        let bytes: usize = records.iter().map(weight).sum();
        self.logged.fetch_add(COMMIT_BYTES + bytes, Ordering::Relaxed);
        if records.iter().any(|record| matches!(record, Record::QueueDeleted(_) | Record::GroupDeleted(..))) {
            self.garbage.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read(&self, stream: StreamNo, from: u64, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, StoreError> {
        self.read(|conn| read::range(conn, stream, from, limit))
    }

    fn read_these(&self, stream: StreamNo, seqs: &[u64], bytes: usize) -> Result<Vec<Arc<Stored>>, StoreError> {
        self.read(|conn| read::these(conn, stream, seqs, bytes))
    }

    fn first_due(&self, lot: StreamNo, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, StoreError> {
        self.read(|conn| read::first_due(conn, lot, limit))
    }

    fn entered(&self, stream: StreamNo, from: u64, count: usize) -> Result<Vec<(u64, i64)>, StoreError> {
        self.read(|conn| read::entered(conn, stream, from, count))
    }

    fn syncs(&self) -> Durations {
        lock(&self.syncs).clone()
    }

    fn wants_tidying(&self) -> bool {
        self.garbage.load(Ordering::Relaxed) || self.logged.load(Ordering::Relaxed) >= LOG_BYTES
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        if self.garbage.load(Ordering::Relaxed) {
            let more = self.write(|writer| Ok(tidy::sweep(&mut writer.conn)?))?;
            self.garbage.store(more, Ordering::Relaxed);
            self.logged.fetch_add(COMMIT_BYTES, Ordering::Relaxed);
        }
        if self.logged.load(Ordering::Relaxed) >= LOG_BYTES {
            self.checkpoint()?;
        }
        Ok(self.garbage.load(Ordering::Relaxed))
    }

    fn release(&self, in_order: bool) -> Result<(), StoreError> {
        drop(lock(&self.reader).take());
        drop(lock(&self.checkpointer).take());
        let writer = lock(&self.writer).take();
        let ended = match writer {
            Some(writer) if in_order => tidy::end_log(&writer.conn).map_err(StoreError::new),
            _ => Ok(()),
        };
        // Last: until here the directory is ours.
        drop(lock(&self.lock).take());
        ended
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn released() -> StoreError {
    StoreError::new("the database is closed")
}

/// Roughly what a record adds to the log.
fn weight(record: &Record) -> usize {
    match record {
        Record::Appended(_, message) | Record::Parked(_, message) => message.footprint(),
        _ => 64,
    }
}
