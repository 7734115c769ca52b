//! [`IndexError`]: why the index could not be read or changed.

use crate::store::disk::log::file_cache::ReadError;

/// The result of reading or changing the index.
pub(crate) type IndexResult<T> = Result<T, IndexError>;

/// Why the index could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0}")]
    Contradiction(String),
    /// The index has commits that the log lacks.
    #[error("it has {index} commits, and the log ends with commit {log}")]
    Ahead { index: u64, log: u64 },
}
