//! A copy of a data directory at one commit, made while the store is in use.
//!
//! Full segments never change and are copied as they are. The last segment is copied up to the end of the last commit. The index is
//! copied before that, in one read transaction: opening the copy completes it from the log. A list of all files with their checksums
//! is written last, so a copy without it is incomplete.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::store::{
    Store, StoreError,
    disk::{
        DiskStore,
        file_ops::{private, sync_directory},
        layout::{DATABASE, INITIALIZED, LOCK, LOG, MANIFEST},
        locked,
        log::answered::AnsweredFile,
        open::{create, require_data_directory},
        released,
        tools::error::RepairError,
    },
    position::Position,
};

const CHUNK: usize = 1024 * 1024;

/// A complete backup: the last commit in it, and its files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// The number of the last commit in it.
    pub commit: u64,
    /// Its files.
    pub files: Vec<CopiedFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Its path in the backup.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum.
    pub crc32: u32,
}

impl Backup {
    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Copies a directory that no server uses into a new one.
///
/// # Errors
/// When it is in use or does not open, or the copy cannot be written.
pub fn back_up(dir: &Path, dest: &Path) -> Result<Backup, RepairError> {
    require_data_directory(dir)?;
    let (store, _) = DiskStore::open(dir)?;
    let made = store.copy_to(dest);
    // It was opened for the copy only.
    let _ = store.release(true);
    made.map_err(|error| RepairError::Impossible(error.to_string()))
}

/// Whether a path, which need not exist, is below a directory.
pub(crate) fn inside(path: &Path, directory: &Path) -> bool {
    let Ok(directory) = directory.canonicalize() else { return false };
    path.ancestors().find_map(|above| above.canonicalize().ok()).is_some_and(|there| there.starts_with(directory))
}

/// While a value exists, no segment is deleted.
struct Pin<'a>(&'a AtomicUsize);

impl<'a> Pin<'a> {
    fn set(pins: &'a AtomicUsize) -> Self {
        pins.fetch_add(1, Ordering::SeqCst);
        Self(pins)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl DiskStore {
    /// Copies the store into a new directory.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<Backup, StoreError> {
        let held = self.hold()?;
        let database = held.as_ref().ok_or_else(released)?.database();
        let own = database.parent().unwrap_or(&database);
        if inside(to, own) {
            let text = format!("{} is inside the data directory {}: name another place", to.display(), own.display());
            return Err(StoreError::new(text));
        }
        begin(to).map_err(|error| named(to, &error))?;
        let pin = Pin::set(&self.pins);
        // Waits for a deletion of segments that is under way, because it holds the index.
        let copied = self.change_index(|_| Ok(())).and_then(|()| self.copy(&database, to));
        drop(pin);
        self.maintenance_due.store(true, Ordering::Relaxed);
        if copied.is_err() {
            // The directory was created by this call and is no usable copy.
            let _ = std::fs::remove_dir_all(to);
        }
        copied
    }

    fn copy(&self, database: &Path, to: &Path) -> Result<Backup, StoreError> {
        // The index first: whatever it lacks is in the segments that are copied after it.
        let mut files = vec![copy_index(database, to)?];
        let (last, end) = {
            // One moment of the log: later commits are not part of the copy, although their bytes may be in the last segment.
            let log = locked(&self.log);
            let log = log.as_ref().ok_or_else(released)?;
            (log.last(), log.end())
        };
        let directory = &self.files.directory;
        let answered = AnsweredFile::open(&to.join(LOG), directory.log).map_err(StoreError::new)?;
        // If this process did not write the last commit, its position may be unknown.
        if last.at != Position::default() {
            answered.note(last);
        }
        let name = format!("{LOG}/answered");
        files.push(sum_of(to, &name).map_err(|error| named(&to.join(&name), &error))?);
        for segment in directory.segments().map_err(StoreError::new)?.into_iter().filter(|one| *one <= end.segment) {
            let from = directory.file(segment);
            let file = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let name = format!("{LOG}/{file}");
            let copied = copy_segment(&from, to, &name, Position { segment, ..end }, end);
            files.push(copied.map_err(|error| named(&from, &error))?);
        }
        let backup = Backup { commit: last.number, files };
        finish(to, &backup).map_err(|error| named(to, &error))?;
        Ok(backup)
    }
}

fn named(path: &Path, error: &io::Error) -> StoreError {
    StoreError::new(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Creates the directory of a copy. A directory that is not empty is refused.
fn begin(to: &Path) -> io::Result<()> {
    if std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(io::Error::other("a copy goes into a new directory, and there is something in this one"));
    }
    create(to)?;
    create(&to.join(LOG))
}

/// Copies the index as it is at one moment, without free pages.
fn copy_index(database: &Path, to: &Path) -> Result<CopiedFile, StoreError> {
    let copy = to.join(DATABASE);
    // Created here, because SQLite would let everybody read it. `VACUUM INTO` accepts an empty file.
    let made = private().write(true).create_new(true).open(&copy).map_err(|error| named(&copy, &error))?;
    let conn = Connection::open(database).map_err(StoreError::new)?;
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(StoreError::new)?;
    conn.execute("VACUUM INTO ?1", [copy.to_string_lossy()]).map_err(StoreError::new)?;
    made.sync_all().and_then(|()| sum_of(to, DATABASE)).map_err(|error| named(&copy, &error))
}

/// Copies a segment; the last one only up to the end of the log.
fn copy_segment(from: &Path, to: &Path, name: &str, at: Position, end: Position) -> io::Result<CopiedFile> {
    let source = File::open(from)?;
    let bytes = source.metadata()?.len();
    let wanted = if at.segment == end.segment { end.offset } else { bytes };
    let mut copy = private().write(true).create_new(true).open(to.join(name))?;
    // Bytes after the end of the log may belong to a commit that is being written.
    let mut source = source.take(wanted);
    let (mut sum, mut chunk) = (crc32fast::Hasher::new(), vec![0; CHUNK]);
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        sum.update(&chunk[..read]);
        copy.write_all(&chunk[..read])?;
    }
    // The copy has the full size, with zeros after the last commit, as recovery expects it.
    copy.set_len(bytes)?;
    copy.sync_all()?;
    chunk.fill(0);
    let mut zeros = bytes - wanted;
    while zeros > 0 {
        let length = zeros.min(CHUNK as u64);
        sum.update(&chunk[..usize::try_from(length).unwrap_or(CHUNK)]);
        zeros -= length;
    }
    Ok(CopiedFile { name: name.to_owned(), bytes, crc32: sum.finalize() })
}

/// The length and checksum of a file of a backup.
pub(crate) fn sum_of(dir: &Path, name: &str) -> io::Result<CopiedFile> {
    let mut file = File::open(dir.join(name))?;
    let (mut sum, mut bytes, mut chunk) = (crc32fast::Hasher::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(CopiedFile { name: name.to_owned(), bytes, crc32: sum.finalize() });
        }
        sum.update(&chunk[..read]);
        bytes += read as u64;
    }
}

fn finish(to: &Path, backup: &Backup) -> io::Result<()> {
    // Everything else is on the disk before the list is written, because the list says that the copy is complete.
    write_new(&to.join(LOCK), format!("{INITIALIZED}\n").as_bytes())?;
    sync_directory(&to.join(LOG))?;
    sync_directory(to)?;
    write_new(&to.join(MANIFEST), &serde_json::to_vec_pretty(backup)?)?;
    sync_directory(to)
}

fn write_new(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
