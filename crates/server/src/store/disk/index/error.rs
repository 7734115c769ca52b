//! [`IndexError`]: why the index could not be read or changed.

use crate::store::disk::log::file_cache::ReadError;

/// What was read: the database's state for the broker, or what is wrong with it.
pub(crate) type IndexResult<T> = Result<T, IndexError>;

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0}")]
    Contradiction(String),
}
