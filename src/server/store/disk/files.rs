//! The files of the log that are open for reading, and the messages in them.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{at, frame, log::named, position::Run, segment::Directory};
use crate::server::store::Stored;

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

    /// The bytes of a run.
    pub(super) fn bytes(&self, run: &Run) -> Result<Bytes, ReadError> {
        let mut bytes = vec![0; run.bytes as usize];
        let read = at::read(&*self.get(run.at.segment)?, &mut bytes, run.at.offset);
        read.map_err(|error| self.explain(&error, run.at.segment))?;
        Ok(Bytes::from(bytes))
    }

    /// When the messages of a run entered, with their places. A run of small messages is read whole and checked against its checksum;
    /// of a large message only the head is read, so that its size does not matter.
    pub(super) fn times(&self, run: &Run) -> Result<Vec<(u64, i64)>, ReadError> {
        if run.bytes as usize <= 2 * frame::RUN_BYTES {
            return Ok(self.messages(run)?.iter().map(|message| (message.seq, message.entered_ms)).collect());
        }
        let file = self.get(run.at.segment)?;
        let mut at = run.at.offset + frame::RUN_HEAD as u64;
        let end = run.at.offset + u64::from(run.bytes);
        let mut times = Vec::with_capacity(run.count as usize);
        for place in run.first..run.end() {
            let mut head = [0; frame::MESSAGE_HEAD];
            at::read(&file, &mut head, at).map_err(|error| self.explain(&error, run.at.segment))?;
            let (entered_ms, length) = frame::entry_time(&head).map_err(|corrupt| self.damaged(run, corrupt))?;
            at += length;
            if at > end {
                return Err(self.damaged(run, frame::Corrupt));
            }
            times.push((place, entered_ms));
        }
        Ok(times)
    }

    /// The messages of a run.
    pub(super) fn messages(&self, run: &Run) -> Result<Vec<Arc<Stored>>, ReadError> {
        let messages = frame::messages(self.directory.log, run, &self.bytes(run)?);
        messages.map_err(|corrupt| self.damaged(run, corrupt))
    }

    fn damaged(&self, run: &Run, corrupt: frame::Corrupt) -> ReadError {
        let (file, offset) = (self.directory.file(run.at.segment), run.at.offset);
        ReadError::Damaged(format!("{} is damaged at byte {offset}: {corrupt}", file.display()))
    }

    fn explain(&self, error: &io::Error, segment: u64) -> ReadError {
        let named = named(error, &self.directory, segment);
        if error.kind() == io::ErrorKind::NotFound { ReadError::Gone(named) } else { ReadError::Io(named) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
