//! Locking a data directory: only one process may use it.

use std::{
    fs::{File, Metadata, TryLockError},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use dms_protocol::internal::file_lock::LockedFile;

use crate::store::{
    OpenError,
    disk::{
        file_ops,
        layout::{DATABASE, IMPORTING, INITIALIZED, LOCK, LOG, MANIFEST},
    },
    error::is_full,
};

/// A data directory that belongs to this process until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    /// The locked file.
    lock: LockedFile,
    /// The description of the locked file. No other file gets its inode while it is open.
    identity: Metadata,
    /// The path of the lock file.
    lock_path: PathBuf,
    /// The directory of the log is locked too. The lock file can be deleted, and then a second process could create and lock another
    /// one.
    log_lock: Option<LockedFile>,
    /// Whether the directory contains a database.
    pub(crate) begun: bool,
}

impl DataDir {
    /// Locks a directory that exists.
    pub(crate) fn lock_existing(dir: &Path) -> Result<Self, OpenError> {
        require_data_directory(dir)?;
        match std::fs::metadata(dir.join(DATABASE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(OpenError::Damaged {
                    file: dir.join(DATABASE),
                    reason: "it is missing or empty".to_owned(),
                });
            }
            there => there.map_err(|source| unusable(dir, source))?,
        };
        Self::lock(dir)
    }

    /// Locks a directory, which is created if it is missing.
    pub(crate) fn lock(dir: &Path) -> Result<Self, OpenError> {
        let unusable = |source| unusable(dir, source);
        create(dir).map_err(unusable)?;
        warn_if_open_to_others(dir);
        // Created if missing and then locked. The lock is the kernel's, so it ends with the process, however that dies.
        let lock_path = dir.join(LOCK);
        let file = file_ops::open_or_create(&lock_path).map_err(unusable)?;
        let mut said = String::new();
        match LockedFile::try_lock(file) {
            Ok(lock) => {
                (&*lock).read_to_string(&mut said).map_err(unusable)?;
                let begun = said.starts_with(INITIALIZED);
                let identity = lock.metadata().map_err(unusable)?;
                let locked = Self { dir: dir.to_owned(), lock, identity, lock_path, log_lock: None, begun };
                // Writes the process id, which a second process reports to its operator.
                locked.sign().map_err(unusable)?;
                // From now on this is not a copy of another directory any more.
                let _ = file_ops::remove(&dir.join(MANIFEST));
                Ok(locked)
            }
            Err((mut file, TryLockError::WouldBlock)) => {
                // The text only names the other process, so a failure to read it is no further error.
                let _ = file.read_to_string(&mut said);
                let pid = said.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
                Err(OpenError::InUse { dir: dir.to_owned(), pid })
            }
            Err((_, TryLockError::Error(source))) => Err(unusable(source)),
        }
    }

    /// Whether the lock file in the directory is still the file that this process has locked. If it or the whole directory was
    /// deleted or replaced, another process may have locked the directory and may be writing to it.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn is_ours(&self) -> io::Result<bool> {
        // Checked before every commit, so it costs one system call and no allocation.
        match std::fs::metadata(&self.lock_path) {
            Ok(found) => Ok(is_same_file(&found, &self.identity)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The error text for a directory that is no longer locked by this process.
    pub(crate) fn lost_text(&self) -> String {
        format!(
            "{} was deleted or replaced while this server ran: nothing is written any more",
            self.lock_path.display()
        )
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// The path of the database.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// The path of the log's directory.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// Whether the directory had an index and a log before, so that missing ones are a loss.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Records that the directory has an index and a log. The directory entry of the log is on the disk before that is said.
    pub(crate) fn begin(&mut self) -> Result<(), OpenError> {
        self.begun = true;
        // First the entries of the database and the log, then the text that says they exist.
        let signed = file_ops::sync_directory(&self.dir).and_then(|()| self.sign());
        signed.map_err(|source| self.unusable(source))
    }

    /// Creates the directory of the log if it is missing, and locks it.
    pub(crate) fn lock_log_directory(&mut self) -> Result<(), OpenError> {
        let path = self.log_directory();
        if !self.begun {
            create(&path).map_err(|source| self.unusable(source))?;
        }
        // Where a directory cannot be opened, an open lock file cannot be deleted either.
        if cfg!(unix) && path.exists() {
            let directory = File::open(&path).map_err(|source| self.unusable(source))?;
            match LockedFile::try_lock(directory) {
                Ok(locked) => self.log_lock = Some(locked),
                Err((_, TryLockError::WouldBlock)) => {
                    return Err(OpenError::InUse { dir: self.dir.clone(), pid: None });
                }
                Err((_, TryLockError::Error(source))) => return Err(self.unusable(source)),
            }
        }
        Ok(())
    }

    pub(crate) fn unusable(&self, source: io::Error) -> OpenError {
        unusable(&self.dir, source)
    }

    fn sign(&self) -> io::Result<()> {
        let begun = if self.begun { INITIALIZED } else { "" };
        let text = format!("{begun}\npid {}\n", std::process::id());
        // Overwrites the old text: at no moment is the file empty, because then a lost database would look like a new directory.
        file_ops::write(&self.lock, text.as_bytes(), 0)?;
        // A longer text of the previous process is cut off after it was overwritten.
        file_ops::set_len(&self.lock, text.len() as u64)?;
        file_ops::sync_all(&self.lock)
    }
}

/// Tools never create a directory: a name that was mistyped is an error, not an empty data directory.
pub(crate) fn require_data_directory(dir: &Path) -> Result<(), OpenError> {
    let absent = |found| Err(OpenError::Absent { dir: dir.to_owned(), found });
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => absent("does not exist"),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => absent("is a file"),
        Err(source) => Err(OpenError::Directory { dir: dir.to_owned(), source }),
        Ok(true) => absent("is empty"),
        Ok(false) if !dir.join(LOCK).exists() && !dir.join(DATABASE).exists() => {
            absent("has neither dms.lock nor dms.db")
        }
        Ok(false) => Ok(()),
    }
}

/// Refuses a directory that has a part of an export only.
pub(crate) fn refuse_half_imported(dir: &Path) -> Result<(), OpenError> {
    let Ok(marker) = std::fs::read_to_string(dir.join(IMPORTING)) else { return Ok(()) };
    // The marker is small JSON; damage to it makes the import no more complete.
    let marker: Result<serde_json::Value, _> = serde_json::from_str(&marker);
    let export = marker.ok().and_then(|marker| Some(marker.get("export")?.as_str()?.to_owned()));
    Err(OpenError::Importing { dir: dir.to_owned(), export: export.unwrap_or_default() })
}

/// Creates a directory if it is missing. Its entry is on the disk when the parent is synced.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    file_ops::create_directory(dir)?;
    if let Some(parent) = dir.canonicalize()?.parent() {
        // This user may not be allowed to read the parent.
        let _ = file_ops::sync_directory(parent);
    }
    Ok(())
}

/// Warns if the directory existed before and other users may read it.
fn warn_if_open_to_others(dir: &Path) {
    #[cfg(unix)]
    if let Ok(meta) = std::fs::metadata(dir) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777;
        if mode & 0o077 != 0 {
            let (dir, mode) = (dir.display(), format!("{mode:04o}"));
            tracing::warn!(%dir, mode, "other users of this machine can look into the data directory; chmod 0700 ends that");
        }
    }
}

/// Whether two descriptions belong to one file.
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        a.dev() == b.dev() && a.ino() == b.ino()
    }
    // On other platforms an open file cannot be deleted.
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        true
    }
}

/// Explains an I/O error of the directory to an operator who starts the server.
pub(crate) fn unusable(dir: &Path, source: io::Error) -> OpenError {
    let dir = dir.to_owned();
    if is_full(source.kind()) {
        OpenError::Full { file: dir, reason: source.to_string() }
    } else {
        OpenError::Directory { dir, source }
    }
}
