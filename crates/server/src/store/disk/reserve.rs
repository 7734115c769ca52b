//! Room on the disk that is kept for what has to go on when the disk is full: acknowledgements, dead letters, delays that end, and the
//! next start.
//!
//! Two files that hold nothing. One becomes the next file of the log when there is no room for another; the other is deleted when
//! the index has none to take in what the log has. While either of them is missing, no new message is taken: new messages are refused
//! first, and what is there already can be worked off.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use crate::store::{
    disk::{file_ops, layout::LOG, locked, log::segment::LogDirectory},
    error::is_full,
};

/// The file that is kept for the log, in its directory.
const LOG_RESERVE: &str = "reserve";
/// The file that is kept for the index.
const INDEX_RESERVE: &str = "dms.reserve";

/// The files that are kept, and whether they are there.
#[derive(Debug)]
pub(crate) struct Reserve {
    for_log: ReserveFile,
    for_index: ReserveFile,
}

/// A file that is kept.
#[derive(Debug)]
struct ReserveFile {
    path: PathBuf,
    size: u64,
    state: Mutex<ReserveState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReserveState {
    /// Nobody looked yet, or it could not be made for another reason than a full disk, which is no reason to refuse messages.
    Unknown,
    There,
    /// It was needed, or there is no room for it.
    Missing,
}

impl Reserve {
    /// Those of a data directory whose log has files of this size.
    pub(crate) fn of(dir: &Path, segment_bytes: u64) -> Self {
        let kept = |path, size| ReserveFile { path, size, state: Mutex::new(ReserveState::Unknown) };
        let for_log = kept(dir.join(LOG).join(LOG_RESERVE), segment_bytes / 2);
        Self { for_log, for_index: kept(dir.join(INDEX_RESERVE), segment_bytes / 4) }
    }

    /// Makes what is missing.
    pub(crate) fn make(&self) -> io::Result<()> {
        let made = [self.for_log.make(), self.for_index.make()];
        made.into_iter().collect()
    }

    /// Refuses new messages while something is missing.
    pub(crate) fn check(&self) -> io::Result<()> {
        let missing = [&self.for_log, &self.for_index].into_iter().find(|kept| *kept.lock() == ReserveState::Missing);
        let Some(ReserveFile { path, size, .. }) = missing else { return Ok(()) };
        let what = format!(
            "the disk is full: there is no room for {} ({size} bytes), without which no new message is taken",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, what))
    }

    /// Makes the file that is kept for the log a file of the log, which holds frames of this length.
    pub(crate) fn give_to_log(&self, directory: &LogDirectory, segment: u64, length: u64) -> io::Result<File> {
        let ReserveFile { path, size, .. } = &self.for_log;
        let mut state = self.for_log.lock();
        if *state != ReserveState::There || length > *size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // From here on it is not what it was, whatever becomes of it.
        *state = ReserveState::Missing;
        directory.adopt(path, &file, segment, *size)?;
        tracing::debug!(file = %directory.file(segment).display(), "the disk is full: the log goes on in the room that was kept for it");
        Ok(file)
    }

    /// Deletes the file that is kept for the index; whether there was one.
    pub(crate) fn give_to_index(&self) -> io::Result<bool> {
        self.for_index.give_up()
    }
}

/// Deletes what is kept in a directory that cannot be opened on a full disk, one file at a time; whether there was one.
pub(crate) fn give_up(dir: &Path) -> io::Result<bool> {
    let Reserve { for_log, for_index } = Reserve::of(dir, 0);
    Ok(for_index.give_up()? || for_log.give_up()?)
}

impl ReserveFile {
    fn make(&self) -> io::Result<()> {
        let mut state = self.lock();
        if *state == ReserveState::There {
            return Ok(());
        }
        let made = self.fill();
        *state = match &made {
            Ok(()) => ReserveState::There,
            Err(error) if is_full(error.kind()) => ReserveState::Missing,
            Err(_) => ReserveState::Unknown,
        };
        if made.is_err() {
            // Half of it is of no use, and its room may be.
            let _ = file_ops::remove(&self.path);
        }
        made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }

    fn fill(&self) -> io::Result<()> {
        // One that is there may be a copy, which has no room of its own.
        let file = file_ops::open_or_create(&self.path)?;
        if file.metadata()?.len() > self.size {
            file_ops::set_len(&file, self.size)?;
        }
        file_ops::reserve(&self.path, &file, self.size)?;
        file_ops::sync_all(&file)?;
        self.path.parent().map_or(Ok(()), file_ops::sync_directory)
    }

    fn give_up(&self) -> io::Result<bool> {
        let mut state = self.lock();
        match file_ops::remove(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => {
                *state = ReserveState::Missing;
                removed.map(|()| true)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ReserveState> {
        locked(&self.state)
    }
}
