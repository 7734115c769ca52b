//! The names of the files in a data directory.

/// The database of the index.
pub(crate) const DATABASE: &str = "dms.db";
/// The directory of the log.
pub(crate) const LOG: &str = "log";
/// The lock file.
pub(crate) const LOCK: &str = "dms.lock";
/// The lock file begins with this text once there is a database. From then on a missing or empty database is a loss, not a new
/// directory.
pub(crate) const INITIALIZED: &str = "dms-worker data directory";
/// The list of files of a backup, in the backup.
pub(crate) const MANIFEST: &str = "backup.json";
/// Names the export that is being imported. While it is there, no server opens the directory.
pub(crate) const IMPORTING: &str = "importing.json";
