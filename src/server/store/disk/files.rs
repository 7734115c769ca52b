//! The files of the log that are open for reading, and the messages in them.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    at,
    log::named,
    position::Run,
    run::{self, Content, Corrupt, MESSAGE_HEAD, RUN_BYTES, RUN_HEAD},
    segment::Directory,
};
use crate::server::store::Damaged;

/// How many files are kept open: what is read is mostly at the ends of a few backlogs.
const KEPT_OPEN: usize = 64;

/// Why messages could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The file is gone: what it had was moved, or expired.
    #[error("{0}")]
    Gone(io::Error),
    /// The system could not read it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its bytes are not what was written.
    #[error("{0}")]
    Damaged(String),
}

/// Files for reading.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) directory: Directory,
    open: Mutex<BTreeMap<u64, Arc<File>>>,
}

impl Files {
    /// None is open yet.
    pub(super) fn of(directory: Directory) -> Self {
        Self { directory, open: Mutex::default() }
    }

    /// A file, opened if it is not open.
    pub(super) fn get(&self, segment: u64) -> Result<Arc<File>, ReadError> {
        if let Some(file) = self.lock().get(&segment) {
            return Ok(file.clone());
        }
        let file = Arc::new(self.directory.open(segment).map_err(|error| self.explain(&error, segment))?);
        let mut open = self.lock();
        open.insert(segment, file.clone());
        if open.len() > KEPT_OPEN {
            open.pop_first();
        }
        Ok(file)
    }

    /// Removes a file from the directory.
    pub(super) fn remove(&self, segment: u64) -> io::Result<()> {
        self.lock().remove(&segment);
        std::fs::remove_file(self.directory.file(segment))
    }

    /// Closes the files behind one: they may be made anew under the same names.
    pub(super) fn close_behind(&self, segment: u64) {
        self.lock().split_off(&(segment + 1));
    }

    /// The bytes of a run.
    pub(super) fn bytes(&self, run: &Run) -> Result<Bytes, ReadError> {
        let mut bytes = vec![0; run.bytes as usize];
        let read = at::read(&*self.get(run.at.segment)?, &mut bytes, run.at.offset);
        read.map_err(|error| self.explain(&error, run.at.segment))?;
        Ok(Bytes::from(bytes))
    }

    /// When the messages of a run entered, with their places; `None` where that cannot be read. A run of small messages is read
    /// whole; of a large message only the head is read, so that its size does not matter.
    pub(super) fn times(&self, run: &Run) -> Result<Vec<(u64, Option<i64>)>, ReadError> {
        if run.bytes as usize > 2 * RUN_BYTES {
            match self.times_by_heads(run) {
                Err(ReadError::Damaged(_)) if run.count == 1 => return Ok(vec![(run.first, None)]),
                Err(ReadError::Damaged(_)) => {}
                times => return times,
            }
        }
        Ok(self.read(run)?.times())
    }

    fn times_by_heads(&self, run: &Run) -> Result<Vec<(u64, Option<i64>)>, ReadError> {
        let file = self.get(run.at.segment)?;
        let read =
            |bytes: &mut [u8], at| at::read(&file, bytes, at).map_err(|error| self.explain(&error, run.at.segment));
        let mut head = [0; RUN_HEAD];
        read(&mut head, run.at.offset)?;
        let checked = run::is_checked(&head);
        let mut at = run.at.offset + RUN_HEAD as u64;
        let end = run.at.offset + u64::from(run.bytes);
        let mut times = Vec::with_capacity(run.count as usize);
        for place in run.first..run.end() {
            let mut head = [0; MESSAGE_HEAD];
            read(&mut head, at)?;
            let found = match run::Head::read_alone(self.directory.log, (run.stream, place), &head) {
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

    /// What a run holds: its messages, and which of them are damaged. Where the disk gives nothing back, all of them are.
    pub(super) fn read(&self, run: &Run) -> Result<Content, ReadError> {
        match self.bytes(run) {
            Ok(bytes) => Ok(run::read(self.directory.log, run, &bytes)),
            Err(ReadError::Damaged(_)) => Ok(Content::lost(run)),
            Err(error) => Err(error),
        }
    }

    /// The damaged messages of a run, for whoever has to look after them.
    pub(super) fn describe(&self, run: &Run, content: &Content) -> Vec<Damaged> {
        if content.damaged.is_empty() {
            return Vec::new();
        }
        let reason = match self.bytes(run) {
            Ok(_) => Corrupt.to_string(),
            Err(error) => error.to_string(),
        };
        let (file, reason): (Arc<str>, Arc<str>) =
            (self.directory.file(run.at.segment).display().to_string().into(), reason.into());
        let damaged = content.damaged.iter().map(|wound| Damaged {
            seq: wound.seq,
            entered_ms: wound.entered_ms,
            file: file.clone(),
            offset: run.at.offset + wound.offset as u64,
            reason: reason.clone(),
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
            // The file is shorter, or another one, than it was: what was in it is lost.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ReadError::Damaged(named.to_string()),
            // A place that the disk cannot read any more is no reason to give nobody what is behind it.
            _ if is_unreadable(error) => ReadError::Damaged(named.to_string()),
            _ => ReadError::Io(named),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the disk itself says that it cannot read a place.
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
