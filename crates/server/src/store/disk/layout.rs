//! The names of the files in a data directory.

/// The index's name in the directory.
pub(crate) const DATABASE: &str = "dms.db";
/// The name of the log's directory in it.
pub(crate) const LOG: &str = "log";
/// The lock file's name in the directory.
pub(crate) const LOCK: &str = "dms.lock";
/// What the lock file says once there is a database: from then on a missing or empty one is a loss, not a beginning.
pub(crate) const INITIALIZED: &str = "dms-worker data directory";
/// The list of a copy's files, in the copy.
pub(crate) const MANIFEST: &str = "backup.json";
