//! A shadow of a data directory, which is opened in its place to see what opening would do.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use dms_protocol::internal::file_lock::LockedFile;
use rusqlite::Connection;

use crate::store::{
    OpenError,
    disk::{
        layout::{DATABASE, LOCK, LOG},
        open::{create, require_data_directory},
    },
};

/// Keeps other processes out of a directory without writing to it.
pub(crate) fn hold(dir: &Path) -> Result<LockedFile, OpenError> {
    let unusable = |source| OpenError::Directory { dir: dir.to_owned(), source };
    require_data_directory(dir)?;
    // A server holds both. The lock file can be deleted, and a tool that only looks does not create it.
    let lock = match File::open(dir.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(dir.join(LOG)),
        opened => opened,
    };
    let lock = lock.map_err(unusable)?;
    LockedFile::try_lock(lock).map_err(|(_, error)| match error {
        TryLockError::WouldBlock => OpenError::InUse { dir: dir.to_owned(), pid: None },
        TryLockError::Error(source) => unusable(source),
    })
}

/// A directory that is opened in place of another one.
pub(crate) struct Shadow {
    pub(crate) path: PathBuf,
    /// The number of the log, if the index says it.
    pub(crate) log: Option<u32>,
}

impl Shadow {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dms-worker-check-{}-{number}", std::process::id()));
        let mut shadow = Self { path, log: None };
        create(&shadow.path.join(LOG))?;
        for name in [DATABASE, "dms.db-wal", LOCK, "log/answered"] {
            copy_if_there(&dir.join(name), &shadow.path.join(name))?;
        }
        // Asked of the copy, because SQLite would create files beside the original.
        let known = known(&shadow.path.join(DATABASE));
        shadow.log = known.map(|(log, _)| log);
        let written = known.map_or(0, |(_, segment)| segment);
        for entry in std::fs::read_dir(dir.join(LOG))? {
            let entry = entry?;
            let (from, to) = (entry.path(), shadow.path.join(LOG).join(entry.file_name()));
            let number = from.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            match number {
                // Recovery only reads the segments that are in the index completely; the others it may write to.
                Some(number) if number < written => link(&from, &to)?,
                Some(_) => drop(std::fs::copy(&from, &to)?),
                None => {}
            }
        }
        Ok(shadow)
    }

    /// The same text, about the directory itself.
    pub(crate) fn real(&self, text: &str, dir: &Path) -> String {
        text.replace(&*self.path.to_string_lossy(), &dir.to_string_lossy())
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // A failure only wastes space in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The number of the log, and the segment that the index has read up to.
fn known(database: &Path) -> Option<(u32, u64)> {
    let conn = Connection::open(database).ok()?;
    conn.query_row("SELECT log, segment FROM counter", [], |row| Ok((row.get(0)?, row.get(1)?))).ok()
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::copy(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Links a file that is only read.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(from.canonicalize()?, to);
    #[cfg(not(unix))]
    std::fs::copy(from, to).map(drop)
}
