//! A disk with little room, for tests: files of a data directory are made and enlarged only up to a limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

/// How many bytes the files of some directories may have.
static LIMITS: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Directories whose index has no room.
static FULL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// From now on the files of a directory and those in its directories may have so many bytes; SQLite's are not asked.
pub(crate) fn limit(dir: &Path, bytes: u64) {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), bytes);
}

/// From now on the index grows only where the file that is kept for it is not there any more, from the next time it is opened.
pub(crate) fn fill_index(dir: &Path) {
    FULL.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
}

/// Has an index that was opened grow no more, where there is no room for that.
pub(crate) fn limit_index(conn: &Connection, database: &Path) -> rusqlite::Result<()> {
    let full = FULL.lock().unwrap_or_else(PoisonError::into_inner);
    match database.parent() {
        Some(dir) if full.contains(dir) && dir.join("dms.reserve").exists() => {
            conn.pragma_update(None, "max_page_count", 1)
        }
        _ => Ok(()),
    }
}

/// Nothing but what is there has room.
pub(crate) fn fill(dir: &Path) {
    limit(dir, used(dir));
}

/// How many bytes the files have that room is reserved for.
pub(crate) fn used(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => used(&entry.path()),
        Ok(meta) if !entry.file_name().to_string_lossy().starts_with("dms.db") => meta.len(),
        _ => 0,
    };
    entries.map(size).sum()
}

/// Whether there is room for a file to have so many bytes.
pub(crate) fn check(path: &Path, file: &File, size: u64) -> io::Result<()> {
    let limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((dir, most)) = limits.iter().find(|(dir, _)| path.starts_with(dir)) else { return Ok(()) };
    let more = size.saturating_sub(file.metadata()?.len());
    if more > 0 && used(dir) + more > *most { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
