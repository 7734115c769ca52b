//! Opens the database of the index: checks before the file is trusted, and its settings.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, config::DbConfig};

use crate::store::{
    OpenError,
    disk::{
        file_ops,
        index::{checksums, schema},
        open::DataDir,
    },
    disk::{index::error::IndexError, log::file_cache::ReadError},
    error::is_full,
};

/// The minimum length of a database: one page of the smallest size.
const MIN_DATABASE_BYTES: u64 = 512;

impl DataDir {
    /// Explains an error of the index to an operator who starts the server.
    pub(crate) fn explain(&self, error: IndexError) -> OpenError {
        match error {
            IndexError::Sqlite(error) => explain(&self.database(), &error),
            IndexError::Contradiction(reason) => OpenError::Damaged { file: self.database(), reason },
            IndexError::Ahead { index, log } => OpenError::IndexAhead { dir: self.path().to_owned(), index, log },
            IndexError::Read(ReadError::Io(error)) if is_full(error.kind()) => self.unusable(error),
            IndexError::Read(error) => OpenError::Damaged { file: self.log_directory(), reason: error.to_string() },
        }
    }

    /// Opens a connection that only reads.
    pub(crate) fn connect_reader(&self) -> Result<Connection, OpenError> {
        let file = self.database();
        let reader = connect(&file).and_then(|reader| {
            reader.pragma_update(None, "query_only", true)?;
            reader.pragma_update(None, "cache_size", -4_096)?;
            Ok(reader)
        });
        reader.map_err(|error| explain(&file, &error))
    }

    /// Opens the database. Creates it if the directory is new, and migrates it if it is older.
    pub(crate) fn open_database(&mut self) -> Result<Connection, OpenError> {
        let file = self.database();
        let empty = std::fs::metadata(&file).map_or(true, |meta| meta.len() < MIN_DATABASE_BYTES);
        // The lock file says that there was a database, so an empty one is a loss and not a new directory.
        if empty && self.begun {
            return Err(OpenError::Damaged { file, reason: "it is missing or empty".to_owned() });
        }
        if is_cut_short(&file).map_err(|source| self.unusable(source))? {
            return Err(OpenError::Damaged { file, reason: "its end is missing".to_owned() });
        }
        if !file.exists() {
            // Created here, because SQLite would let everybody read it. SQLite's other files inherit the permissions.
            file_ops::create(&file).map_err(|source| self.unusable(source))?;
        }
        let mut conn = connect(&file).map_err(|error| explain(&file, &error))?;
        #[cfg(test)]
        crate::store::disk::tests::small_disk::limit_index(&conn, &file).map_err(|error| explain(&file, &error))?;
        let version = recognise(&conn, &file)?;
        let prepared = set_up(&mut conn, version).and_then(|()| checksums::keep_totals(&conn));
        prepared.map_err(|error| explain(&file, &error))?;
        Ok(conn)
    }
}

/// Whether the file is shorter than its header says. If SQLite's write-ahead log or its journal exists, SQLite restores the end from
/// there.
fn is_cut_short(file: &Path) -> io::Result<bool> {
    let has_bytes = |ending| std::fs::metadata(file.with_extension(ending)).is_ok_and(|meta| meta.len() > 0);
    if has_bytes("db-wal") || has_bytes("db-journal") || !file.exists() {
        return Ok(false);
    }
    let mut header = [0; 32];
    let length = File::open(file)?.take(32).read(&mut header)?;
    // SQLite itself reports a file that is no database.
    if length < header.len() || !header.starts_with(b"SQLite format 3\0") {
        return Ok(false);
    }
    // Offsets 16 (page size) and 28 (number of pages) of the file format.
    let page_size = u64::from(u16::from_be_bytes([header[16], header[17]]));
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    Ok(std::fs::metadata(file)?.len() < pages * page_size)
}

/// Opens a connection. Closing the last one does not checkpoint: a release is as safe as a crash, and as fast.
pub(crate) fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(file)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A checkpoint waits for the readers of this process, such as a backup that copies the index.
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(128);
    checksums::register(&conn)?;
    Ok(conn)
}

/// Refuses an index of a later version, whose log this program would take for damaged. Any other index is accepted, also a damaged one.
///
/// # Errors
/// [`OpenError::Newer`] alone.
pub(crate) fn refuse_newer(file: &Path) -> Result<(), OpenError> {
    let conn = connect(file).map_err(|error| explain(file, &error));
    match conn.and_then(|conn| recognise(&conn, file)) {
        Err(newer @ OpenError::Newer { .. }) => Err(newer),
        _ => Ok(()),
    }
}

/// The version of the file; 0 for a new one.
fn recognise(conn: &Connection, file: &Path) -> Result<usize, OpenError> {
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let look = || -> rusqlite::Result<(i64, i64, i64)> {
        // The schema is read first, because the pragmas of a file that is no database return zeros instead of an error.
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

/// Migrates the tables and waits until they are on the disk, because the log is unusable without them. Later transactions need no
/// sync: what the index loses in a crash, it reads from the log again.
fn set_up(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    // Readers and the writer do not wait for each other in this mode.
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "cache_size", -16_384)?;
    // A migration must not be lost: the log may soon contain records that only the new version reads.
    if version < schema::VERSION {
        conn.pragma_update(None, "synchronous", "FULL")?;
        schema::migrate(conn, version)?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    // Commits are not synced in this mode. A power cut may take whole transactions away, which are read from the log again, but
    // never a part of one.
    conn.pragma_update(None, "synchronous", "NORMAL")
}

/// Whether SQLite ran out of disk space.
pub(crate) fn sqlite_is_full(error: &rusqlite::Error) -> bool {
    // If SQLite's shared memory cannot grow it reports this error instead of a full disk.
    let is_memory = |code: rusqlite::ffi::Error| code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    error.sqlite_error_code() == Some(ErrorCode::DiskFull) || error.sqlite_error().copied().is_some_and(is_memory)
}

/// Explains an error of SQLite to an operator who starts the server.
pub(crate) fn explain(file: &Path, error: &rusqlite::Error) -> OpenError {
    let file = file.to_owned();
    match error.sqlite_error_code() {
        _ if sqlite_is_full(error) => OpenError::Full { file, reason: error.to_string() },
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { file },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { file, reason: error.to_string() },
        _ => OpenError::Unusable { file, reason: error.to_string() },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A database that a power cut left shorter than its header says is brought back by SQLite from the log or the journal beside it.
    #[test]
    fn a_file_is_not_cut_short_while_there_is_a_journal() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dms.db");
        let mut page = [0; 4_096];
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&4_096u16.to_be_bytes());
        page[28..32].copy_from_slice(&2u32.to_be_bytes());
        std::fs::write(&file, page).unwrap();
        assert!(is_cut_short(&file).unwrap());
        for ending in ["db-wal", "db-journal"] {
            let beside = file.with_extension(ending);
            std::fs::write(&beside, "pages").unwrap();
            assert!(!is_cut_short(&file).unwrap(), "with {ending}");
            std::fs::write(&beside, "").unwrap();
            assert!(is_cut_short(&file).unwrap(), "with an empty {ending}");
        }
    }
}
