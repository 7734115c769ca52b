//! Disk space that is reserved for work that must continue when the disk is full: acknowledgements, dead letters, ended delays, and
//! the next start.
//!
//! There are two files without content. One becomes the next segment when there is no space for another one. The other gives its
//! space to the index when it cannot grow. While one of them is incomplete no new messages are accepted: they are refused first, so
//! that the existing ones can be worked off.

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

/// The reserve for the log, in its directory.
const LOG_RESERVE: &str = "reserve";
/// The reserve for the index.
const INDEX_RESERVE: &str = "dms.reserve";

/// The first part of a reserve that is given up is its size divided by this.
const FIRST_STEP_FRACTION: u64 = 64;

/// The reserves of a data directory.
#[derive(Debug)]
pub(crate) struct Reserve {
    for_log: ReserveFile,
    for_index: ReserveFile,
}

/// One reserve.
#[derive(Debug)]
struct ReserveFile {
    path: PathBuf,
    size: u64,
    state: Mutex<ReserveState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReserveState {
    /// Not checked yet, or it could not be created for a reason other than a full disk, which is no reason to refuse messages.
    Unknown,
    There,
    /// It was needed, or there is no space for it.
    Missing,
}

impl Reserve {
    /// The reserves of a data directory with segments of this size.
    pub(crate) fn of(dir: &Path, segment_bytes: u64) -> Self {
        let kept = |path, size| ReserveFile { path, size, state: Mutex::new(ReserveState::Unknown) };
        let for_log = kept(dir.join(LOG).join(LOG_RESERVE), segment_bytes / 2);
        Self { for_log, for_index: kept(dir.join(INDEX_RESERVE), segment_bytes / 4) }
    }

    /// Creates or completes the files.
    pub(crate) fn make(&self) -> io::Result<()> {
        // Both are tried, so that a failure of the first does not keep the second from being completed.
        let made = [self.for_log.make(), self.for_index.make()];
        made.into_iter().collect()
    }

    /// Refuses new messages while a reserve is incomplete.
    pub(crate) fn check(&self) -> io::Result<()> {
        let missing = [&self.for_log, &self.for_index].into_iter().find(|kept| *kept.lock() == ReserveState::Missing);
        let Some(ReserveFile { path, size, .. }) = missing else { return Ok(()) };
        let what = format!(
            "the disk is full: there is no room for {} ({size} bytes), without which no new message is taken",
            path.display()
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, what))
    }

    /// Makes a segment of the reserve for the log, for frames of this length.
    pub(crate) fn give_to_log(&self, directory: &LogDirectory, segment: u64, length: u64) -> io::Result<File> {
        let ReserveFile { path, size, .. } = &self.for_log;
        // Held while the file changes hands, so that it is not completed at the same time.
        let mut state = self.for_log.lock();
        // Only a file that was filled completely counts: the rest of an incomplete one would need room on the full disk.
        if *state != ReserveState::There || length > *size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // From here on the file cannot be a reserve any more, whatever fails.
        *state = ReserveState::Missing;
        directory.adopt(path, &file, segment, *size)?;
        tracing::debug!(file = %directory.file(segment).display(), "the disk is full: the log goes on in the room that was kept for it");
        Ok(file)
    }

    /// Gives a part of the index's reserve back to the disk. `step` counts the attempts of one operation. Returns whether there was
    /// any left.
    pub(crate) fn give_to_index(&self, step: u32) -> io::Result<bool> {
        self.for_index.give_up(step)
    }
}

/// Gives a part of the reserves of a directory back to a full disk, so that the directory can be opened. `step` counts the attempts
/// of one start. Returns whether there was any left.
pub(crate) fn give_up(dir: &Path, segment_bytes: u64, step: u32) -> io::Result<bool> {
    let Reserve { for_log, for_index } = Reserve::of(dir, segment_bytes);
    Ok(for_index.give_up(step)? || for_log.give_up(step)?)
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
        made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }

    /// Brings the file to its full size. Without enough space it keeps its present size, because the next start needs that part.
    fn fill(&self) -> io::Result<()> {
        let file = file_ops::open_or_create(&self.path)?;
        let before = file.metadata()?.len();
        if before > self.size {
            file_ops::set_len(&file, self.size)?;
        }
        // A copy of the file may be sparse or share its blocks, so all of them are allocated again.
        if let Err(error) = file_ops::reserve(&self.path, &file, self.size) {
            // The system may have allocated a part.
            let shrunk = if before == 0 {
                file_ops::remove(&self.path)
            } else {
                file_ops::set_len(&file, before.min(self.size))
            };
            if let Err(error) = shrunk {
                tracing::debug!(%error, file = %self.path.display(), "an incomplete reserve keeps what the disk gave it");
            }
            // The first error says whether the disk is full, which decides whether new messages are refused.
            return Err(error);
        }
        file_ops::sync_all(&file)?;
        self.path.parent().map_or(Ok(()), file_ops::sync_directory)
    }

    /// Gives a part of the file back to the disk. The first part is small, and each further one twice as large, so an operation
    /// takes at most twice the space that it needs. If the whole file was given up at once, two starts on a disk that other
    /// programs fill up in between would use up both reserves.
    fn give_up(&self, step: u32) -> io::Result<bool> {
        let mut state = self.lock();
        let length = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            meta => meta?.len(),
        };
        // New messages are refused from now on, until the file has its full size again.
        *state = ReserveState::Missing;
        let part = (self.size / FIRST_STEP_FRACTION).max(1).saturating_mul(1 << step.min(16));
        if part >= length {
            file_ops::remove(&self.path)?;
        } else {
            file_ops::set_len(&OpenOptions::new().write(true).open(&self.path)?, length - part)?;
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, ReserveState> {
        locked(&self.state)
    }
}
