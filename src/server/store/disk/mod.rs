//! The store on disk: a log that every commit is appended to, and an index that follows it.
//!
//! A commit is one frame of the log, on the disk when the call returns (one fdatasync for all that waits). What it changed is
//! kept in memory until the index, a SQLite database, takes it in with many others. Messages stay in the log: the index knows
//! where. After a crash the index is behind; opening reads the rest of the log into it.
//!
//! `open` guards the directory, `recovery` brings the index up to the end of the log, past damage if `mend` can read it, `answered` notes how far commits were
//! answered. `frame`, `run`, `segment` and `log` are the
//! log's bytes, files and end; `recent` is what the index does not have yet. `read` finds messages in both and has `files` read
//! them, `times` reads their entry times alone. `backup` copies all of it while it is in use, `check` looks at a directory without changing it,
//! `repair` gives up what keeps one from opening, and `rebuild` makes the index anew.
//! `tidy` does what nobody waits for, and `moving` empties files of the log that hold little.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rusqlite::Connection;

#[cfg(fuzzing)]
pub(crate) use self::frame::read_any;
pub use self::open::OpenError;
use self::{
    backup::Backup,
    files::Files,
    frame::Frame,
    index::{load::LoadError, writer::Writer},
    log::{Log, NextFile},
    moving::Moving,
    open::DataDir,
    recent::Recent,
};
use super::{Found, ReadLimit, Record, Snapshot, Store, StoreError, StreamNo};
use crate::server::durations::Durations;

mod answered;
mod at;
pub(crate) mod backup;
#[cfg(any(feature = "cli", test))]
pub(crate) mod check;
#[cfg(test)]
mod damage_tests;
mod files;
mod frame;
mod index;
mod log;
mod mend;
#[cfg(test)]
mod model_tests;
mod moving;
mod open;
mod position;
mod read;
#[cfg(any(feature = "cli", test))]
pub(crate) mod rebuild;
mod recent;
mod recovery;
#[cfg(any(feature = "cli", test))]
pub(crate) mod repair;
mod run;
mod segment;
#[cfg(test)]
mod tests;
mod tidy;
mod times;

/// How large a file of the log is.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// Records in a log and its index.
#[derive(Debug)]
pub(crate) struct DiskStore {
    log: Mutex<Option<Log>>,
    next: Arc<NextFile>,
    index: Mutex<Option<Writer>>,
    /// Finds messages without waiting for a transaction.
    lookup: Mutex<Option<Connection>>,
    files: Files,
    recent: Mutex<Recent>,
    /// The directory is ours while this is here. Every call that writes holds it for reading, so that it is given up only after the
    /// last of them has ended.
    lock: RwLock<Option<DataDir>>,
    /// Whether there may be something to do that nobody waits for.
    untidy: AtomicBool,
    /// Whether a file of the log may be empty, or nearly.
    emptied: AtomicBool,
    moving: Mutex<Moving>,
    /// Copies that are being made: no file of the log is removed meanwhile.
    pins: AtomicUsize,
    segment_bytes: u64,
    /// Why the index did not take in what the log has, when it was last to.
    index_error: Mutex<Option<StoreError>>,
    /// Apart from the log: looking at it waits for no commit.
    syncs: Mutex<Durations>,
}

impl DiskStore {
    /// Opens a data directory, created if it is missing.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Snapshot), OpenError> {
        Self::open_with(dir, SEGMENT_BYTES)
    }

    fn open_with(dir: &Path, segment_bytes: u64) -> Result<(Self, Snapshot), OpenError> {
        let mut lock = DataDir::lock(dir)?;
        let opened = recovery::recover(&mut lock, segment_bytes)?;
        let lookup = lock.connect_reader()?;
        let snapshot = index::load::snapshot(&opened.writer.conn, &opened.files);
        let snapshot = snapshot.map_err(|error| lock.explain(error))?;
        let store = Self {
            log: Mutex::new(Some(opened.log)),
            next: opened.next,
            recent: Mutex::new(Recent::nothing_behind(opened.writer.applied, opened.number)),
            index: Mutex::new(Some(opened.writer)),
            lookup: Mutex::new(Some(lookup)),
            files: opened.files,
            lock: RwLock::new(Some(lock)),
            untidy: AtomicBool::new(true),
            emptied: AtomicBool::new(true),
            moving: Mutex::default(),
            pins: AtomicUsize::new(0),
            segment_bytes,
            index_error: Mutex::default(),
            syncs: Mutex::default(),
        };
        Ok((store, snapshot))
    }

    /// Keeps the directory until the guard is dropped.
    ///
    /// # Errors
    /// After the store was released, and when the lock file was deleted: what is written then may be another process's.
    fn hold(&self) -> Result<RwLockReadGuard<'_, Option<DataDir>>, StoreError> {
        let held = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().ok_or_else(released)?.check_ours().map_err(StoreError::new)?;
        Ok(held)
    }

    /// Appends a frame to the log.
    fn append(&self, mut frame: Frame) -> Result<(), StoreError> {
        let mut log = locked(&self.log);
        let log = log.as_mut().ok_or_else(released)?;
        let (at, took) = log.append(&mut frame).map_err(StoreError::new)?;
        let bytes = frame.len() as u64;
        let mut recent = locked(&self.recent);
        recent.add(frame.into_changes(at), bytes, log.end());
        if recent.is_much() || log.wants_next() {
            self.untidy.store(true, Ordering::Relaxed);
        }
        locked(&self.syncs).record(took);
        Ok(())
    }

    /// Has the index take in what the log has. What it does not take is kept.
    fn catch_up(&self) -> Result<(), StoreError> {
        let caught_up = self.take_in();
        *locked(&self.index_error) = caught_up.clone().err();
        caught_up
    }

    fn take_in(&self) -> Result<(), StoreError> {
        self.change_index(|writer| {
            let batch = locked(&self.recent).take();
            match writer.apply(&batch) {
                Ok(()) => {
                    locked(&self.recent).forget(&batch);
                    self.emptied.fetch_or(batch.deletes(), Ordering::Relaxed);
                    Ok(())
                }
                Err(error) => {
                    locked(&self.recent).put_back(batch);
                    Err(error)
                }
            }
        })
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Writer) -> Result<T, LoadError>) -> Result<T, StoreError> {
        match locked(&self.index).as_mut() {
            Some(writer) => change(writer).map_err(StoreError::new),
            None => Err(released()),
        }
    }
}

impl Store for DiskStore {
    fn blocks(&self) -> bool {
        true
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        let _held = self.hold()?;
        self.append(Frame::of(self.files.directory.log, records).map_err(StoreError::new)?)
    }

    fn read(&self, stream: StreamNo, from: u64, limit: ReadLimit) -> Result<Found, StoreError> {
        self.know_lot(stream)?;
        self.read_range(stream, from, limit)
    }

    fn read_these(&self, stream: StreamNo, seqs: &[u64], bytes: usize) -> Result<Found, StoreError> {
        self.know_lot(stream)?;
        self.read_places(stream, seqs, bytes)
    }

    fn first_due(&self, lot: StreamNo, limit: ReadLimit, skip: &BTreeSet<u64>) -> Result<Found, StoreError> {
        self.know_lot(lot)?;
        self.read_due(lot, limit, skip)
    }

    fn entered(&self, stream: StreamNo, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.know_lot(stream)?;
        self.entry_times(stream, from, count, until_ms)
    }

    fn back_up(&self, to: &Path) -> Result<Backup, StoreError> {
        self.copy_to(to)
    }

    fn syncs(&self) -> Durations {
        locked(&self.syncs).clone()
    }

    fn wants_tidying(&self) -> bool {
        self.untidy.load(Ordering::Relaxed)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        let _held = self.hold()?;
        self.untidy.store(false, Ordering::Relaxed);
        let tidied = self.tidy_step();
        if !matches!(tidied, Ok(false)) {
            self.untidy.store(true, Ordering::Relaxed);
        }
        tidied
    }

    fn index_error(&self) -> Option<StoreError> {
        locked(&self.index_error).clone()
    }

    fn probe(&self) -> Result<(), StoreError> {
        let _held = self.hold()?;
        locked(&self.log).as_mut().ok_or_else(released)?.clean().map_err(StoreError::new)?;
        self.next.make().map_err(StoreError::new)
    }

    fn release(&self, in_order: bool) -> Result<(), StoreError> {
        // Waits for the calls that are under way.
        let mut lock = self.lock.write().unwrap_or_else(PoisonError::into_inner);
        drop(locked(&self.log).take());
        drop(locked(&self.lookup).take());
        let ended =
            if in_order { self.catch_up().and_then(|()| self.change_index(|writer| writer.end())) } else { Ok(()) };
        drop(locked(&self.index).take());
        // Last: until here the directory is ours.
        drop(lock.take());
        ended
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn released() -> StoreError {
    StoreError::new("the store is closed")
}
