//! [`FileCache`]: the segments that are open for reading, and reading runs from them.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::store::{
    Damaged,
    disk::{
        file_ops::{self, pread},
        locked,
        log::segment::{LogDirectory, named},
    },
    position::Run,
    run::{self, Corrupt, MESSAGE_HEADER, RUN_BYTES, RUN_HEADER, RunContent},
};

/// The maximum number of open files. Most reads are at the ends of a few backlogs.
const MAX_OPEN_FILES: usize = 64;

/// Why messages could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The file no longer exists: its messages were moved or have expired.
    #[error("{0}")]
    Gone(io::Error),
    /// The system could not read the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes differ from the written ones.
    #[error("{0}")]
    Damaged(String),
}

/// Open segments.
#[derive(Debug)]
pub(crate) struct FileCache {
    pub(crate) directory: LogDirectory,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
    /// Where the disk failed last, until a probe there or elsewhere succeeds.
    fault: Mutex<Option<ReadFault>>,
    /// Offsets at which reads fail.
    #[cfg(test)]
    pub(crate) broken: Mutex<std::ops::Range<u64>>,
}

/// A place that the disk did not return.
#[derive(Clone, Debug)]
struct ReadFault {
    run: Run,
    reason: String,
}

impl FileCache {
    /// An empty cache.
    pub(crate) fn of(directory: LogDirectory) -> Self {
        Self {
            directory,
            open: Mutex::default(),
            fault: Mutex::default(),
            #[cfg(test)]
            broken: Mutex::default(),
        }
    }

    /// The file of a segment, opened if necessary.
    pub(crate) fn get(&self, segment: u64) -> Result<Arc<File>, ReadError> {
        self.open(segment).map_err(|error| self.explain(&error, segment))
    }

    fn open(&self, segment: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.lock().get(&segment) {
            return Ok(file.clone());
        }
        // Opened without the lock, so that other readers do not wait for the disk. Two of them may open the same file, and one is
        // dropped.
        let file = Arc::new(self.directory.open(segment)?);
        let mut open = self.lock();
        open.insert(segment, file.clone());
        if open.len() > MAX_OPEN_FILES {
            // A reader that still uses the file keeps it open by its own reference.
            open.pop_first();
        }
        Ok(file)
    }

    /// Deletes the file of a segment.
    pub(crate) fn remove(&self, segment: u64) -> io::Result<()> {
        // Removed from the cache first, so that nobody gets it after this. A reader that already has the file can go on, because an
        // open file outlives its name.
        self.lock().remove(&segment);
        file_ops::remove(&self.directory.file(segment))
    }

    /// Closes the files after `segment`, because files of the same names may be created again.
    pub(crate) fn close_behind(&self, segment: u64) {
        self.lock().split_off(&(segment + 1));
    }

    /// Reads the bytes of a run.
    pub(crate) fn bytes(&self, run: &Run) -> Result<Bytes, ReadError> {
        let mut bytes = vec![0; run.bytes as usize];
        self.read_part(run, &mut bytes, run.at.offset)?;
        Ok(Bytes::from(bytes))
    }

    /// Reads a part of a run, and records a failure of the disk.
    fn read_part(&self, run: &Run, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let read = self.read_at(run.at.segment, bytes, offset);
        read.map_err(|error| {
            let explained = self.explain(&error, run.at.segment);
            // A missing or truncated file says nothing about the disk, so only other errors make the server unready.
            if !says_what_is_there(&error) {
                *locked(&self.fault) = Some(ReadFault { run: *run, reason: explained.to_string() });
            }
            explained
        })
    }

    fn read_at(&self, segment: u64, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.open(segment)?;
        #[cfg(test)]
        if locked(&self.broken).contains(&offset) {
            return Err(rustix::io::Errno::IO.into());
        }
        pread::read(&file, bytes, offset)
    }

    /// Why the disk failed, if nothing could be read since.
    pub(crate) fn fault(&self) -> Option<String> {
        locked(&self.fault).as_ref().map(|fault| fault.reason.clone())
    }

    /// Reads the place that failed again, and if that fails, another place: one unreadable place is not a failing disk. Returns
    /// whether the place itself can be read.
    pub(crate) fn probe(&self) -> io::Result<bool> {
        // Cloned, so that readers which record another fault do not wait for a disk that may answer slowly.
        let Some(ReadFault { run, .. }) = locked(&self.fault).clone() else { return Ok(true) };
        let mut bytes = vec![0; run.bytes as usize];
        let moved_bytes = match self.read_at(run.at.segment, &mut bytes, run.at.offset) {
            Err(error) if !says_what_is_there(&error) => {
                self.read_head(run.at.segment)?;
                false
            }
            _ => true,
        };
        *locked(&self.fault) = None;
        Ok(moved_bytes)
    }

    /// Reads the beginning of a file from the disk, not from the page cache.
    fn read_head(&self, segment: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        // Otherwise the page cache would answer for a disk that is gone.
        rustix::fs::fadvise(&*self.open(segment)?, 0, None, rustix::fs::Advice::DontNeed)?;
        self.read_at(segment, &mut [0; 16], 0)
    }

    /// The sequence numbers and entry times of a run; `None` for a time that cannot be read. A run of small messages is read
    /// completely. Of large messages only the headers are read, so that their size does not matter.
    pub(crate) fn times(&self, run: &Run) -> Result<Vec<(u64, Option<i64>)>, ReadError> {
        if run.bytes as usize > 2 * RUN_BYTES {
            match self.times_by_heads(run) {
                Err(ReadError::Damaged(_)) if run.count == 1 => return Ok(vec![(run.first, None)]),
                // A damaged header hides where the next message begins. Reading the whole run finds the others by
                // their own checksums.
                Err(ReadError::Damaged(_)) => {}
                times => return times,
            }
        }
        Ok(self.read(run)?.times())
    }

    /// The first readable entry time in a run, of a message from `from` on.
    pub(crate) fn first_time(&self, run: &Run, from: u64) -> Option<i64> {
        let times = self.times(run).ok()?;
        times.into_iter().filter(|(seq, _)| *seq >= from).find_map(|(_, entered_ms)| entered_ms)
    }

    fn times_by_heads(&self, run: &Run) -> Result<Vec<(u64, Option<i64>)>, ReadError> {
        let read = |bytes: &mut [u8], at| self.read_part(run, bytes, at);
        let mut head = [0; RUN_HEADER];
        read(&mut head, run.at.offset)?;
        let checked = run::is_checked(&head);
        let mut at = run.at.offset + RUN_HEADER as u64;
        let end = run.at.offset + u64::from(run.bytes);
        let mut times = Vec::with_capacity(run.count as usize);
        for place in run.first..run.end() {
            let mut head = [0; MESSAGE_HEADER];
            read(&mut head, at)?;
            // Headers of version 0.1 have no checksum. Their sizes are believed as far as the run reaches.
            let found = match run::MessageHeader::read_head(self.directory.log, (run.stream, place), &head) {
                Some(head) => Some((head.entered_ms, head.size() as u64)),
                None => (!checked).then(|| run::old_entry_time(&head)),
            };
            let (entered_ms, length) = found.ok_or_else(|| self.damaged(run, Corrupt))?;
            at += length;
            if at > end {
                return Err(self.damaged(run, Corrupt));
            }
            times.push((place, Some(entered_ms)));
        }
        Ok(times)
    }

    /// Reads a run: its messages, and which of them are damaged. If the disk returns nothing, all of them are.
    pub(crate) fn read(&self, run: &Run) -> Result<RunContent, ReadError> {
        self.read_with(run, &mut Vec::new())
    }

    /// The same. The bytes of a run of several messages go into `room`, which serves for many runs.
    pub(crate) fn read_with(&self, run: &Run, room: &mut Vec<u8>) -> Result<RunContent, ReadError> {
        let log = self.directory.log;
        let read = if run.count > 1 {
            let length = run.bytes as usize;
            room.resize(room.len().max(length), 0);
            let bytes = &mut room[..length];
            self.read_part(run, bytes, run.at.offset).map(|()| run::read_copied(log, run, bytes))
        } else {
            self.bytes(run).map(|bytes| run::read(log, run, &bytes))
        };
        match read {
            Err(ReadError::Damaged(_)) => Ok(RunContent::lost(run)),
            read => read,
        }
    }

    /// Describes the damaged messages of a run for the operator.
    pub(crate) fn describe(&self, run: &Run, content: &RunContent) -> Vec<Damaged> {
        if content.damaged.is_empty() {
            return Vec::new();
        }
        // Read again: if the disk returns the bytes they are wrong, and if it does not its error is the reason.
        let (reason, is_unreadable) = match self.bytes(run) {
            Ok(_) => (Corrupt.to_string(), false),
            Err(error) => (error.to_string(), self.fault().is_some_and(|fault| fault == error.to_string())),
        };
        let (file, reason): (Arc<str>, Arc<str>) =
            (self.directory.file(run.at.segment).display().to_string().into(), reason.into());
        let damaged = content.damaged.iter().map(|wound| Damaged {
            seq: wound.seq,
            entered_ms: wound.entered_ms,
            file: file.clone(),
            offset: run.at.offset + wound.offset as u64,
            reason: reason.clone(),
            is_unreadable,
        });
        damaged.collect()
    }

    fn damaged(&self, run: &Run, corrupt: Corrupt) -> ReadError {
        let (file, offset) = (self.directory.file(run.at.segment), run.at.offset);
        ReadError::Damaged(format!("{} is damaged at byte {offset}: {corrupt}", file.display()))
    }

    fn explain(&self, error: &io::Error, segment: u64) -> ReadError {
        let named = named(error, &self.directory, segment);
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Gone(named),
            // The file is shorter than it was, or another one: its messages are lost.
            _ if says_what_is_there(error) => ReadError::Damaged(named.to_string()),
            // One place that the disk cannot read is no reason to withhold the messages after it.
            _ if is_unreadable(error) => ReadError::Damaged(named.to_string()),
            _ => ReadError::Io(named),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<File>>> {
        locked(&self.open)
    }
}

/// Whether the error says something about the file, and not that the disk or the system failed.
fn says_what_is_there(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | UnexpectedEof | InvalidData)
}

/// Whether the disk itself reported that it cannot read a place.
fn is_unreadable(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}
