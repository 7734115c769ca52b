//! Opening a data directory: the lock that keeps a second process out, and the checks before a file is believed.

use std::{
    fs::{File, Metadata, TryLockError},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, config::DbConfig};

use crate::store::{
    OpenError,
    disk::{
        file_ops,
        index::{checksums, load::IndexError, schema},
        log::file_cache::ReadError,
        tools::backup::MANIFEST,
    },
    full::is_full,
};

/// The index's name in the directory.
pub(crate) const DATABASE: &str = "dms.db";
/// The name of the log's directory in it.
pub(crate) const LOG: &str = "log";
/// The lock file's name in the directory.
pub(crate) const LOCK: &str = "dms.lock";
/// The shortest database there can be: one page of the smallest size.
const MIN_DATABASE_BYTES: u64 = 512;
/// What the lock file says once there is a database: from then on a missing or empty one is a loss, not a beginning.
pub(crate) const INITIALIZED: &str = "dms-worker data directory";

/// A data directory that is ours while this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: PathBuf,
    /// Held while it is open.
    lock: File,
    /// The log's directory, locked too: the lock file can be deleted, and then a second process would get a lock of its own.
    log_lock: Option<File>,
    /// Whether there is a database.
    begun: bool,
}

impl DataDir {
    /// Locks a directory that is one already.
    pub(crate) fn lock_existing(dir: &Path) -> Result<Self, OpenError> {
        let there = std::fs::metadata(dir.join(LOCK)).and_then(|_| std::fs::metadata(dir.join(DATABASE)));
        there.map_err(|source| OpenError::Directory { dir: dir.to_owned(), source })?;
        Self::lock(dir)
    }

    /// Locks a directory, created if it is missing.
    pub(crate) fn lock(dir: &Path) -> Result<Self, OpenError> {
        let unusable = |source| unusable(dir, source);
        create(dir).map_err(unusable)?;
        warn_if_open_to_others(dir);
        let mut lock = file_ops::open_or_create(&dir.join(LOCK)).map_err(unusable)?;
        let mut said = String::new();
        match lock.try_lock() {
            Ok(()) => {
                lock.read_to_string(&mut said).map_err(unusable)?;
                let begun = said.starts_with(INITIALIZED);
                let locked = Self { dir: dir.to_owned(), lock, log_lock: None, begun };
                locked.sign().map_err(unusable)?;
                // From now on this is no copy of another one any more.
                let _ = file_ops::remove(&dir.join(MANIFEST));
                Ok(locked)
            }
            Err(TryLockError::WouldBlock) => {
                // Only to name the other process: that this fails is no further error.
                let _ = lock.read_to_string(&mut said);
                let pid = said.lines().find_map(|line| line.strip_prefix("pid ")?.parse().ok());
                Err(OpenError::InUse { dir: dir.to_owned(), pid })
            }
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Whether the directory is still ours: its lock file is the one that this process holds.
    ///
    /// # Errors
    /// When the lock file, or the whole directory, was deleted or replaced: another process may have begun there.
    pub(crate) fn check_ours(&self) -> io::Result<()> {
        let there = std::fs::metadata(self.dir.join(LOCK));
        let ours = match (there, self.lock.metadata()) {
            (Ok(there), Ok(held)) => is_same_file(&there, &held),
            (Err(error), _) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => false,
        };
        if ours {
            return Ok(());
        }
        let lock = self.dir.join(LOCK);
        let what =
            format!("{} was deleted or replaced while this server ran: nothing is written any more", lock.display());
        Err(io::Error::other(what))
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// Where the log is.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// Whether there was an index and a log here before: then a missing one is a loss.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// There is an index and a log from now on.
    pub(crate) fn begin(&mut self) -> Result<(), OpenError> {
        self.begun = true;
        let signed = file_ops::sync_directory(&self.dir).and_then(|()| self.sign());
        signed.map_err(|source| self.unusable(source))
    }

    /// Makes the directory of the log, if it is missing, and locks it.
    pub(crate) fn lock_log_directory(&mut self) -> Result<(), OpenError> {
        let path = self.log_directory();
        if !self.begun {
            create(&path).map_err(|source| self.unusable(source))?;
        }
        // A directory cannot be opened everywhere; where it cannot, an open lock file cannot be deleted either.
        if cfg!(unix) && path.exists() {
            let directory = File::open(&path).map_err(|source| self.unusable(source))?;
            match directory.try_lock() {
                Ok(()) => self.log_lock = Some(directory),
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { dir: self.dir.clone(), pid: None }),
                Err(TryLockError::Error(source)) => return Err(self.unusable(source)),
            }
        }
        Ok(())
    }

    pub(crate) fn unusable(&self, source: io::Error) -> OpenError {
        unusable(&self.dir, source)
    }

    /// A connection that only looks things up.
    pub(crate) fn connect_reader(&self) -> Result<Connection, OpenError> {
        let file = self.database();
        let cursor = connect(&file).and_then(|cursor| {
            cursor.pragma_update(None, "query_only", true)?;
            cursor.pragma_update(None, "cache_size", -4_096)?;
            Ok(cursor)
        });
        cursor.map_err(|error| explain(&file, &error))
    }

    /// What it means for whoever starts the server that the store could not be read.
    pub(crate) fn explain(&self, error: IndexError) -> OpenError {
        match error {
            IndexError::Sqlite(error) => explain(&self.database(), &error),
            IndexError::Contradiction(reason) => OpenError::Damaged { file: self.database(), reason },
            IndexError::Read(ReadError::Io(error)) if is_full(error.kind()) => self.unusable(error),
            IndexError::Read(error) => OpenError::Damaged { file: self.log_directory(), reason: error.to_string() },
        }
    }

    fn sign(&self) -> io::Result<()> {
        let begun = if self.begun { INITIALIZED } else { "" };
        let text = format!("{begun}\npid {}\n", std::process::id());
        // Over what is there: at no moment is the file empty, and forgotten that there is a database.
        file_ops::write(&self.lock, text.as_bytes(), 0)?;
        file_ops::set_len(&self.lock, text.len() as u64)?;
        file_ops::sync_all(&self.lock)
    }

    /// Opens the database, created if the directory is new, brought up to date if it is older.
    pub(crate) fn open_database(&mut self) -> Result<Connection, OpenError> {
        let file = self.database();
        let empty = std::fs::metadata(&file).map_or(true, |meta| meta.len() < MIN_DATABASE_BYTES);
        if empty && self.begun {
            return Err(OpenError::Damaged { file, reason: "it is missing or empty".to_owned() });
        }
        if is_cut_short(&file).map_err(|source| self.unusable(source))? {
            return Err(OpenError::Damaged { file, reason: "its end is missing".to_owned() });
        }
        if !file.exists() {
            // Made here, so that SQLite does not make it readable for everybody; its other files take over the permissions.
            file_ops::create(&file).map_err(|source| self.unusable(source))?;
        }
        let mut conn = connect(&file).map_err(|error| explain(&file, &error))?;
        #[cfg(test)]
        crate::store::disk::tests::small_disk::limit_index(&conn, &file).map_err(|error| explain(&file, &error))?;
        let version = recognise(&conn, &file)?;
        let prepared = set_up(&mut conn, version);
        prepared.map_err(|error| explain(&file, &error))?;
        Ok(conn)
    }
}

/// Creates the directory if it is missing. The entry of a new one is on the disk when its parent is.
pub(crate) fn create(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    file_ops::create_directory(dir)?;
    if let Some(parent) = dir.canonicalize()?.parent() {
        // One that another made may not be ours to open.
        let _ = file_ops::sync_directory(parent);
    }
    Ok(())
}

/// Warns of a directory that was there before and that others may look into.
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

/// Whether two descriptions are of one file.
fn is_same_file(a: &Metadata, b: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        a.dev() == b.dev() && a.ino() == b.ino()
    }
    // Elsewhere a file that is open cannot be deleted.
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        true
    }
}

/// Whether the file is shorter than its header says. While there is a log, its end may be in there; a journal undoes what was begun.
fn is_cut_short(file: &Path) -> io::Result<bool> {
    let has_bytes = |ending| std::fs::metadata(file.with_extension(ending)).is_ok_and(|meta| meta.len() > 0);
    if has_bytes("db-wal") || has_bytes("db-journal") || !file.exists() {
        return Ok(false);
    }
    let mut header = [0; 32];
    let length = File::open(file)?.take(32).read(&mut header)?;
    // What is no database at all is found out by SQLite.
    if length < header.len() || !header.starts_with(b"SQLite format 3\0") {
        return Ok(false);
    }
    // The file format's offsets 16 (page size) and 28 (pages).
    let page_size = u64::from(u16::from_be_bytes([header[16], header[17]]));
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    Ok(std::fs::metadata(file)?.len() < pages * page_size)
}

/// Opens one connection. Closing the last one does not checkpoint: letting go is as good as a crash, and as fast.
pub(crate) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(file)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(128);
    checksums::register(&conn)?;
    Ok(conn)
}

/// What kind of file this is: its version, 0 for a new one.
fn recognise(conn: &Connection, file: &Path) -> Result<usize, OpenError> {
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let look = || -> rusqlite::Result<(i64, i64, i64)> {
        // The schema is read first: of a file that is no database the header says nothing.
        let tables = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
        Ok((tables, number("application_id")?, number("user_version")?))
    };
    let (tables, application, version) = look().map_err(|error| explain(file, &error))?;
    if tables == 0 && application == 0 && version == 0 {
        return Ok(0);
    }
    if application != i64::from(schema::APPLICATION_ID) {
        return Err(OpenError::Foreign { file: file.to_owned() });
    }
    let version = usize::try_from(version).unwrap_or(0);
    if version < schema::OLDEST_VERSION {
        return Err(OpenError::Older { file: file.to_owned(), found: version });
    }
    if version > schema::VERSION {
        return Err(OpenError::Newer { file: file.to_owned(), found: version, known: schema::VERSION });
    }
    Ok(version)
}

/// Brings the tables up to date, on the disk: without them the log is nobody's. What the index loses later in a crash it takes
/// from the log again.
fn set_up(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "cache_size", -16_384)?;
    if version < schema::VERSION {
        conn.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(conn, version)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    conn.pragma_update(None, "synchronous", "NORMAL")
}

/// What it means for whoever starts the server that the directory cannot be used.
fn unusable(dir: &Path, source: io::Error) -> OpenError {
    let dir = dir.to_owned();
    if is_full(source.kind()) {
        OpenError::Full { file: dir, reason: source.to_string() }
    } else {
        OpenError::Directory { dir, source }
    }
}

/// Whether SQLite needs room that the disk does not have.
pub(crate) fn sqlite_is_full(error: &rusqlite::Error) -> bool {
    // Of its shared memory it says nothing more than that it could not be made larger.
    let is_memory = |code: rusqlite::ffi::Error| code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || error.sqlite_error().copied().is_some_and(is_memory)
}

/// What SQLite's refusal means for whoever starts the server.
pub(crate) fn explain(file: &Path, error: &rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match error.sqlite_error_code() {
        _ if sqlite_is_full(error) => OpenError::Full { file, reason: error.to_string() },
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { file },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { file, reason: error.to_string() },
        _ => OpenError::Unusable { file, reason: error.to_string() },
    }
}
