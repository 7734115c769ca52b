//! A small disk, for tests: files of a data directory are created and enlarged only up to a limit.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

/// The maximum number of bytes that the files of some directories may have.
static LIMITS: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// The number of free bytes that the index of some directories needs to grow.
static NEEDS: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Limits the size of all files below a directory, except SQLite's.
pub(crate) fn limit(dir: &Path, bytes: u64) {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), bytes);
}

/// From its next opening on, the index of a directory can grow only while this number of bytes is free.
pub(crate) fn index_needs(dir: &Path, bytes: u64) {
    NEEDS.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned(), bytes);
}

/// Keeps an index that was opened from growing if there is no space.
pub(crate) fn limit_index(conn: &Connection, database: &Path) -> rusqlite::Result<()> {
    let needs = NEEDS.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(dir) = database.parent() else { return Ok(()) };
    match (needs.get(dir), limits.get(dir)) {
        (Some(needed), Some(limit)) if used(dir) + needed > *limit => conn.pragma_update(None, "max_page_count", 1),
        _ => Ok(()),
    }
}

/// Leaves no free space.
pub(crate) fn fill(dir: &Path) {
    limit(dir, used(dir));
}

/// The size of all files below a directory, except SQLite's.
pub(crate) fn used(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => used(&entry.path()),
        Ok(meta) if !entry.file_name().to_string_lossy().starts_with("dms.db") => meta.len(),
        _ => 0,
    };
    entries.map(size).sum()
}

/// Whether there is space for a file of this size.
pub(crate) fn check(path: &Path, file: &File, size: u64) -> io::Result<()> {
    let limits = LIMITS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((dir, most)) = limits.iter().find(|(dir, _)| path.starts_with(dir)) else { return Ok(()) };
    let more = size.saturating_sub(file.metadata()?.len());
    if more > 0 && used(dir) + more > *most { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}
