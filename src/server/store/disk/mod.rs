//! The store on disk: a log that every commit is appended to, and an index that follows it.
//!
//! A commit is one frame of the log, on the disk when the call returns (one fdatasync for all that waits). What it changed is
//! kept in memory until the index, a SQLite database, takes it in with many others. Messages stay in the log: the index knows
//! where. After a crash the index is behind; opening reads the rest of the log into it.
//!
//! `open` guards the directory, `recovery` brings the index up to the end of the log. `frame`, `segment` and `log` are the
//! log's bytes, files and end; `files` reads messages from it, `recent` is what the index does not have yet, and `moving`
//! empties files of the log that hold little.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use rusqlite::Connection;

pub use self::open::OpenError;
use self::{
    files::{Files, ReadError},
    frame::Frame,
    index::{load::LoadError, lookup, writer::Writer},
    log::{Log, NextFile},
    moving::Moving,
    open::DataDir,
    position::Run,
    recent::Recent,
};
use super::{ReadLimit, Record, Snapshot, Store, StoreError, Stored, StreamNo};
use crate::server::durations::Durations;

mod at;
mod files;
mod frame;
mod index;
mod log;
#[cfg(test)]
mod model_tests;
mod moving;
mod open;
mod position;
mod recent;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;

/// How large a file of the log is.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// How often messages are looked for again because their file was emptied meanwhile.
const LOOKS: usize = 5;

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
    /// The directory is ours while this is here.
    lock: Mutex<Option<DataDir>>,
    /// Whether there may be something to do that nobody waits for.
    untidy: AtomicBool,
    /// Whether a file of the log may be empty, or nearly.
    emptied: AtomicBool,
    moving: Mutex<Moving>,
    segment_bytes: u64,
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
            lock: Mutex::new(Some(lock)),
            untidy: AtomicBool::new(true),
            emptied: AtomicBool::new(true),
            moving: Mutex::default(),
            segment_bytes,
            syncs: Mutex::default(),
        };
        Ok((store, snapshot))
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

    fn look_up<T>(&self, look: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        match locked(&self.lookup).as_ref() {
            Some(conn) => look(conn).map_err(StoreError::new),
            None => Err(released()),
        }
    }

    /// The runs of a stream from the one with a place on, for so many messages.
    fn runs(&self, stream: StreamNo, from: u64, messages: usize) -> Result<Vec<Run>, StoreError> {
        // In this order: what the index takes in between is found there.
        let (recent, covered) = locked(&self.recent).runs(stream, from, messages);
        if covered {
            return Ok(recent);
        }
        let mut runs = self.look_up(|conn| lookup::runs(conn, stream, from, messages))?;
        let end = runs.last().map_or(from, Run::end);
        runs.extend(recent.into_iter().filter(|run| run.first >= end));
        Ok(runs)
    }

    /// Reads what is in the log at places that the index gave. What was moved meanwhile is looked for again.
    fn read_runs<T>(
        &self,
        mut read: impl FnMut() -> Result<Result<T, ReadError>, StoreError>,
    ) -> Result<T, StoreError> {
        for _ in 1..LOOKS {
            match read()? {
                Err(ReadError::Gone(_)) => {}
                found => return found.map_err(StoreError::new),
            }
        }
        read()?.map_err(StoreError::new)
    }

    /// Removes files of the log that nothing needs.
    fn remove_empty(&self) -> Result<(), StoreError> {
        self.change_index(|writer| {
            let before = writer.applied.segment;
            let used = writer.segments_in_use(before)?;
            let mut unused = self.files.directory.segments().map_err(ReadError::Io)?;
            unused.retain(|segment| *segment < before && used.binary_search(segment).is_err());
            if !unused.is_empty() {
                writer.forget_segments(before)?;
            }
            unused.into_iter().try_for_each(|segment| Ok(self.files.remove(segment).map_err(ReadError::Io)?))
        })
    }

    /// Looks for files of the log that can go, or be emptied.
    fn tidy_log(&self) -> Result<(), StoreError> {
        if self.emptied.swap(false, Ordering::Relaxed) {
            let removed = self.remove_empty();
            self.emptied.fetch_or(removed.is_err(), Ordering::Relaxed);
            removed?;
            self.choose_file_to_empty()?;
        }
        self.move_some()
    }
}

impl Store for DiskStore {
    fn blocks(&self) -> bool {
        true
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        self.append(Frame::of(self.files.directory.log, records).map_err(StoreError::new)?)
    }

    fn read(&self, stream: StreamNo, from: u64, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, StoreError> {
        if locked(&self.recent).touches_lot(stream) {
            self.catch_up()?;
        }
        self.read_runs(|| {
            let runs = self.runs(stream, from, limit.messages)?;
            Ok(read_range(&self.files, &runs, from, limit))
        })
    }

    fn read_these(&self, stream: StreamNo, seqs: &[u64], bytes: usize) -> Result<Vec<Arc<Stored>>, StoreError> {
        if locked(&self.recent).touches_lot(stream) {
            self.catch_up()?;
        }
        self.read_runs(|| {
            let mut runs = Vec::with_capacity(seqs.len());
            for seq in seqs {
                runs.push(self.runs(stream, *seq, 1)?.into_iter().find(|run| (run.first..run.end()).contains(seq)));
            }
            Ok(read_places(&self.files, seqs, &runs, bytes))
        })
    }

    fn first_due(&self, lot: StreamNo, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, StoreError> {
        if locked(&self.recent).touches_lot(lot) {
            self.catch_up()?;
        }
        let places = self.look_up(|conn| lookup::first_due(conn, lot, limit.messages))?;
        self.read_these(lot, &places, limit.bytes)
    }

    fn entered(&self, stream: StreamNo, from: u64, count: usize) -> Result<Vec<(u64, i64)>, StoreError> {
        let found = self.read(stream, from, ReadLimit { messages: count, bytes: usize::MAX })?;
        Ok(found.iter().map(|message| (message.seq, message.entered_ms)).collect())
    }

    fn syncs(&self) -> Durations {
        locked(&self.syncs).clone()
    }

    fn wants_tidying(&self) -> bool {
        self.untidy.load(Ordering::Relaxed)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        self.untidy.store(false, Ordering::Relaxed);
        let tidied = self.tidy_step();
        if !matches!(tidied, Ok(false)) {
            self.untidy.store(true, Ordering::Relaxed);
        }
        tidied
    }

    fn release(&self, in_order: bool) -> Result<(), StoreError> {
        drop(locked(&self.log).take());
        drop(locked(&self.lookup).take());
        let ended =
            if in_order { self.catch_up().and_then(|()| self.change_index(|writer| writer.end())) } else { Ok(()) };
        drop(locked(&self.index).take());
        // Last: until here the directory is ours.
        drop(locked(&self.lock).take());
        ended
    }
}

impl DiskStore {
    /// A bounded piece of each thing to do; whether there is more of any.
    fn tidy_step(&self) -> Result<bool, StoreError> {
        let much = locked(&self.recent).is_much();
        if much {
            self.catch_up()?;
        }
        let more_garbage = self.change_index(Writer::sweep)?;
        if more_garbage {
            self.emptied.store(true, Ordering::Relaxed);
        } else {
            self.tidy_log()?;
        }
        let wants_next = locked(&self.log).as_ref().is_some_and(Log::wants_next);
        if wants_next {
            self.next.make().map_err(StoreError::new)?;
        }
        Ok(more_garbage || self.emptied.load(Ordering::Relaxed) || locked(&self.moving).is_under_way())
    }
}

/// Messages of runs that follow each other, from a place on.
fn read_range(files: &Files, runs: &[Run], from: u64, limit: ReadLimit) -> Result<Vec<Arc<Stored>>, ReadError> {
    let mut pile = Pile::new(limit);
    for run in runs {
        for message in files.messages(run)?.into_iter().filter(|message| message.seq >= from) {
            if !pile.add(message) {
                return Ok(pile.messages);
            }
        }
    }
    Ok(pile.messages)
}

/// These messages as far as they are there, each with its run. They are copies: one of them does not keep its whole run in
/// memory.
fn read_places(
    files: &Files,
    places: &[u64],
    runs: &[Option<Run>],
    bytes: usize,
) -> Result<Vec<Arc<Stored>>, ReadError> {
    let mut pile = Pile::new(ReadLimit { messages: places.len(), bytes });
    let mut last: Option<(Run, Vec<Arc<Stored>>)> = None;
    for (place, run) in places.iter().zip(runs).filter_map(|(place, run)| Some((place, (*run)?))) {
        let messages = match last.take_if(|(known, _)| *known == run) {
            Some((_, messages)) => messages,
            None => files.messages(&run)?,
        };
        let found = messages.iter().find(|message| message.seq == *place).map(|message| Arc::new(message.copied()));
        last = Some((run, messages));
        if found.is_some_and(|message| !pile.add(message)) {
            break;
        }
    }
    Ok(pile.messages)
}

/// Messages up to a limit, the first whatever its size.
struct Pile {
    messages: Vec<Arc<Stored>>,
    limit: ReadLimit,
}

impl Pile {
    fn new(limit: ReadLimit) -> Self {
        Self { messages: Vec::new(), limit }
    }

    fn add(&mut self, message: Arc<Stored>) -> bool {
        let footprint = message.footprint();
        if self.messages.len() == self.limit.messages || (!self.messages.is_empty() && footprint > self.limit.bytes) {
            return false;
        }
        self.limit.bytes = self.limit.bytes.saturating_sub(footprint);
        self.messages.push(message);
        true
    }
}

impl Stored {
    /// The same message in memory of its own.
    fn copied(&self) -> Self {
        let Self { seq, entered_ms, body_bytes, .. } = *self;
        Self { seq, entered_ms, json: Bytes::copy_from_slice(&self.json), body_bytes, tags: self.tags.clone() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn released() -> StoreError {
    StoreError::new("the store is closed")
}
