//! A disk with little room, for tests: files of a data directory are made and enlarged only up to a limit.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

/// How many bytes the files of some directories may have.
static LIMITS: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// How many bytes of room the index of some directories needs.
static NEEDS: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// From now on the files of a directory and those in its directories may have so many bytes; SQLite's are not asked.
pub(crate) fn limit(dir: &Path, bytes: u64) {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), bytes);
}

/// From now on the index grows only while the directory has so many bytes of room, from the next time it is opened.
pub(crate) fn index_needs(dir: &Path, bytes: u64) {
    NEEDS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), bytes);
}

/// Has an index that was opened grow no more, where there is no room for that.
pub(crate) fn limit_index(conn: &Connection, database: &Path) -> rusqlite::Result<()> {
    let needs = NEEDS.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(dir) = database.parent() else { return Ok(()) };
    match (needs.get(dir), limits.get(dir)) {
        (Some(needed), Some(limit)) if used(dir) + needed > *limit => conn.pragma_update(None, "max_page_count", 1),
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
