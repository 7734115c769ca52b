//! The store in a data directory: a log that every commit is appended to, and an index that follows it.
//!
//! A commit is one frame of the log, and is on the disk when the call returns; commits that wait share one fdatasync. Its changes
//! stay in the memtable until they are flushed to the index, a SQLite database, together with many others. Messages stay in the log,
//! and the index says where. After a crash the index is behind, and opening completes it from the log.
//!
//! | module | contents |
//! |---|---|
//! | `open`, `layout` | locking the directory, the names of its files |
//! | `recovery` | completing the index from the log |
//! | `log` | frames, segments, the end of the log |
//! | `index` | the SQLite database |
//! | `memtable` | changes that the index lacks |
//! | `read`, `entry_times` | finding and reading messages |
//! | `maintenance`, `compaction` | work that no request waits for |
//! | `file_ops` | every change of a file, so that tests can intercept it |
//! | `tools` | backup, check, repair and rebuild of a directory |

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

#[cfg(fuzzing)]
pub(crate) use self::log::frame::read_any;
use crate::{
    histogram::Histogram,
    store::{
        OpenError, ReadBatch, ReadLimit, Record, Snapshot, Store, StoreError, StreamId,
        disk::{
            compaction::Compaction,
            index::{error::IndexError, writer::Writer},
            log::reserve::{self, Reserve},
            log::{Log, file_cache::FileCache, frame::Frame, next_segment::NextSegment},
            memtable::Memtable,
            open::DataDir,
            tools::backup::Backup,
        },
        position::Position,
    },
};

mod compaction;
mod entry_times;
pub(crate) mod file_ops;
mod index;
pub(crate) mod layout;
mod log;
mod maintenance;
mod memtable;
pub(crate) mod open;
mod read;
mod recovery;
#[cfg(test)]
pub(crate) mod tests;
pub mod tools;

/// The size of a segment.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// Keeps records in a log and its index.
#[derive(Debug)]
pub(crate) struct DiskStore {
    log: Mutex<Option<Log>>,
    next: Arc<NextSegment>,
    index: Mutex<Option<Writer>>,
    /// For reads, which must not wait for a transaction.
    lookup: Mutex<Option<Connection>>,
    files: FileCache,
    memtable: Mutex<Memtable>,
    /// The lock of the directory. Every call that writes holds it for reading, so that it is released only after the last of them
    /// has ended.
    lock: RwLock<Option<DataDir>>,
    /// Whether the lock file was deleted or replaced: another process may have written to the directory since.
    lost: AtomicBool,
    /// Whether there may be maintenance to do.
    maintenance_due: AtomicBool,
    /// Whether a segment may be empty, or nearly.
    segments_emptied: AtomicBool,
    compaction: Mutex<Compaction>,
    /// The number of backups being made. No segment is deleted meanwhile.
    pins: AtomicUsize,
    segment_bytes: u64,
    reserve: Arc<Reserve>,
    /// Why the last flush failed.
    index_error: Mutex<Option<StoreError>>,
    /// Not in the log, so that reading it does not wait for a commit.
    syncs: Mutex<Histogram>,
}

impl DiskStore {
    /// Opens a data directory, or creates it.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Snapshot), OpenError> {
        open::refuse_half_imported(dir)?;
        Self::open_with(dir, SEGMENT_BYTES)
    }

    /// The same for an import, which may have begun.
    pub(crate) fn open_marked(dir: &Path) -> Result<(Self, Snapshot), OpenError> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    /// Which log this is and how many commits it has, as text.
    pub(crate) fn state(&self) -> String {
        format!("log {:08x} {}", self.files.directory.log, locked(&self.memtable).number())
    }

    fn open_with(dir: &Path, segment_bytes: u64) -> Result<(Self, Snapshot), OpenError> {
        let mut step = 0;
        loop {
            // In small, growing parts: where other programs fill the disk up again, the reserve has to last for many starts.
            match Self::open_once(dir, segment_bytes) {
                Err(OpenError::Full { reason, .. }) if reserve::give_up(dir, segment_bytes, step).unwrap_or(false) => {
                    tracing::warn!(dir = %dir.display(), reason, "the disk is full: the data directory is opened with a part of the room that is reserved for that");
                    step += 1;
                }
                opened => return opened,
            }
        }
    }

    fn open_once(dir: &Path, segment_bytes: u64) -> Result<(Self, Snapshot), OpenError> {
        // Before anything is read: another process may be writing.
        let mut lock = DataDir::lock(dir)?;
        let reserve = Arc::new(Reserve::of(dir, segment_bytes));
        // The index is complete when this returns, so the snapshot below needs no log.
        let opened = recovery::recover(&mut lock, segment_bytes, reserve.clone())?;
        let lookup = lock.connect_reader()?;
        let snapshot = index::load::snapshot(&opened.writer.conn, &opened.files);
        let snapshot = snapshot.map_err(|error| lock.explain(error))?;
        // The store opens without the reserve too. Creating it is tried again, and new messages are refused until then.
        if let Err(error) = reserve.make() {
            tracing::debug!(%error, "no room could be kept for a full disk");
        }
        let store = Self {
            log: Mutex::new(Some(opened.log)),
            next: opened.next,
            memtable: Mutex::new(Memtable::nothing_behind(opened.writer.applied, opened.number)),
            index: Mutex::new(Some(opened.writer)),
            lookup: Mutex::new(Some(lookup)),
            files: opened.files,
            lock: RwLock::new(Some(lock)),
            lost: AtomicBool::new(false),
            maintenance_due: AtomicBool::new(true),
            segments_emptied: AtomicBool::new(true),
            compaction: Mutex::default(),
            pins: AtomicUsize::new(0),
            segment_bytes,
            reserve,
            index_error: Mutex::default(),
            syncs: Mutex::default(),
        };
        Ok((store, snapshot))
    }

    /// Makes reads fail that begin at these offsets of any segment.
    #[cfg(test)]
    pub(crate) fn break_places(&self, places: std::ops::Range<u64>) {
        *locked(&self.files.broken) = places;
    }

    /// Holds the directory until the guard is dropped.
    ///
    /// # Errors
    /// After the store was released, and after the lock file was deleted: another process may own the directory then.
    fn hold(&self) -> Result<RwLockReadGuard<'_, Option<DataDir>>, StoreError> {
        let held = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        let Some(directory) = held.as_ref() else { return Err(released()) };
        if self.lost.load(Ordering::Relaxed) || !directory.is_ours().map_err(StoreError::new)? {
            // This is final, because another process may have written to the directory meanwhile.
            self.lost.store(true, Ordering::Relaxed);
            return Err(StoreError::lost(directory.lost_text()));
        }
        Ok(held)
    }

    /// Appends a frame to the log.
    fn append(&self, frame: Frame) -> Result<(), StoreError> {
        self.append_by(frame, Log::append)
    }

    fn append_by(
        &self,
        mut frame: Frame,
        append: impl FnOnce(&mut Log, &mut Frame) -> io::Result<(Position, Duration)>,
    ) -> Result<(), StoreError> {
        // Locks are taken in the order log, memtable, syncs everywhere. The log stays locked until the memtable has the frame, so
        // that the memtable has frames in the order of the log.
        let mut log = locked(&self.log);
        let log = log.as_mut().ok_or_else(released)?;
        let (at, took) = append(log, &mut frame).map_err(StoreError::new)?;
        let bytes = frame.len() as u64;
        let mut memtable = locked(&self.memtable);
        // Visible to reads only now, after the frame is on the disk.
        memtable.add(frame.into_changes(at), bytes, log.end());
        if memtable.needs_flush() || log.needs_next_segment() {
            self.maintenance_due.store(true, Ordering::Relaxed);
        }
        locked(&self.syncs).record(took);
        Ok(())
    }

    /// Flushes the memtable into the index. After an error nothing is lost: the batch stays in the memtable.
    fn flush_memtable(&self) -> Result<(), StoreError> {
        let caught_up = self.flush_with_reserve();
        *locked(&self.index_error) = caught_up.clone().err();
        caught_up
    }

    fn flush_with_reserve(&self) -> Result<(), StoreError> {
        self.with_index_reserve(|| self.flush_once())
    }

    /// Changes the index. If the disk has no room for that, it tries again with more and more of the room that is reserved for the index.
    fn with_index_reserve<T>(&self, change: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut step = 0;
        loop {
            match change() {
                Err(error) if error.is_full() && self.reserve.give_to_index(step).unwrap_or(false) => step += 1,
                changed => return changed,
            }
        }
    }

    fn flush_once(&self) -> Result<(), StoreError> {
        self.change_index(|writer| {
            // Taken while the index is locked, so that batches reach the index in the order of the log. Commits go on meanwhile,
            // and reads still find the batch in the memtable.
            let batch = locked(&self.memtable).take();
            match writer.apply(&batch) {
                Ok(()) => {
                    // Only after the transaction: between the two a read finds a run in both places, never in none.
                    locked(&self.memtable).forget(&batch);
                    self.segments_emptied.fetch_or(batch.deletes(), Ordering::Relaxed);
                    Ok(())
                }
                Err(error) => {
                    // The transaction was rolled back, so the batch goes in front of newer changes again.
                    locked(&self.memtable).put_back(batch);
                    Err(error)
                }
            }
        })
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Writer) -> Result<T, IndexError>) -> Result<T, StoreError> {
        match locked(&self.index).as_mut() {
            Some(writer) => change(writer).map_err(failed),
            None => Err(released()),
        }
    }
}

impl Store for DiskStore {
    fn blocks(&self) -> bool {
        true
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        // The lock of the directory is checked before each commit: after it was deleted, another process may have appended to the
        // same file.
        let _held = self.hold()?;
        self.append(Frame::of(self.files.directory.log, records).map_err(StoreError::refused)?)
    }

    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        self.flush_delay_queue(stream)?;
        self.read_range(stream, from, limit)
    }

    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        self.flush_delay_queue(stream)?;
        self.read_places(stream, seqs, bytes)
    }

    fn first_due(
        &self,
        delay_queue: StreamId,
        limit: ReadLimit,
        skip: &BTreeSet<u64>,
    ) -> Result<ReadBatch, StoreError> {
        self.flush_delay_queue(delay_queue)?;
        self.read_due(delay_queue, limit, skip)
    }

    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.flush_delay_queue(stream)?;
        self.entry_times(stream, from, count, until_ms)
    }

    fn back_up(&self, to: &Path) -> Result<Backup, StoreError> {
        self.copy_to(to)
    }

    fn syncs(&self) -> Histogram {
        locked(&self.syncs).clone()
    }

    fn needs_maintenance(&self) -> bool {
        self.maintenance_due.load(Ordering::Relaxed)
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        let _held = self.hold()?;
        // Cleared before the work: a commit that needs maintenance meanwhile sets it again.
        self.maintenance_due.store(false, Ordering::Relaxed);
        let tidied = self.maintenance_step();
        // There is more to do, or this step failed and has to be tried again.
        if !matches!(tidied, Ok(false)) {
            self.maintenance_due.store(true, Ordering::Relaxed);
        }
        tidied
    }

    fn index_error(&self) -> Option<StoreError> {
        locked(&self.index_error).clone()
    }

    fn probe(&self) -> Result<(), StoreError> {
        let _held = self.hold()?;
        // The steps that the next commit would begin with, without a commit.
        locked(&self.log).as_mut().ok_or_else(released)?.wipe_failed().map_err(StoreError::new)?;
        self.make_missing_files().map_err(StoreError::new)
    }

    fn read_error(&self) -> Option<StoreError> {
        self.files.fault().map(StoreError::new)
    }

    fn probe_reads(&self) -> Result<bool, StoreError> {
        self.look_up(|conn| conn.query_row("SELECT 1 FROM counter", [], |_| Ok(())))?;
        self.files.probe().map_err(StoreError::new)
    }

    fn disk_full(&self) -> Option<StoreError> {
        self.reserve.check().err().map(StoreError::new)
    }

    fn release(&self, in_order: bool) -> Result<(), StoreError> {
        // Waits for the calls that are under way.
        let mut lock = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        // From here on commits and reads fail as lost.
        drop(locked(&self.log).take());
        drop(locked(&self.lookup).take());
        let ended = if in_order {
            self.flush_memtable().and_then(|()| self.change_index(|writer| writer.end()))
        } else {
            Ok(())
        };
        drop(locked(&self.index).take());
        // Released last: until here no other process may open the directory.
        drop(lock.take());
        ended
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the index as one of the store.
fn failed(error: IndexError) -> StoreError {
    match error {
        IndexError::Sqlite(error) if index::open::sqlite_is_full(&error) => {
            StoreError::new(io::Error::new(io::ErrorKind::StorageFull, error))
        }
        error => StoreError::new(error),
    }
}

fn released() -> StoreError {
    StoreError::lost("the store is closed")
}
