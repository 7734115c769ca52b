//! [`TransferError`]: why an export or an import failed.

use std::{
    io,
    path::{Path, PathBuf},
};

#[cfg(feature = "postgres")]
use crate::store::PostgresError;
use crate::store::{OpenError, StoreError};

/// Why an export or an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The store failed.
    #[error("{what}: {reason}; run the same command again to continue")]
    Store {
        /// The operation that failed.
        what: String,
        /// Its error.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{file}: {source}; correct that and run the same command again to continue")]
    File {
        /// The file.
        file: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of an export is damaged.
    #[error(
        "{file} is damaged at byte {offset}: {reason}; nothing was imported from it: copy the export again, or make a new one"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the damaged record begins.
        offset: u64,
        /// The damage.
        reason: String,
    },
    /// The export is of another version.
    #[error(
        "{file} has version {found} of the format, and this program reads version {known}; use a dms-worker that reads it, or \
         make the export again with this one"
    )]
    Version {
        /// The list of its files.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this program reads.
        known: u32,
    },
    /// The directory is no export.
    #[error("{dir} is no export of dms-worker: {found}; name the directory that `dms-worker data export` made")]
    NoExport {
        /// The directory.
        dir: PathBuf,
        /// The kind of the directory.
        found: &'static str,
    },
    /// The export has not finished.
    #[error("the export {dir} has not finished; run the same `dms-worker data export` again")]
    Unfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory for an export is a part of the source.
    #[error("{to} is inside the data directory {dir}: name another place")]
    Inside {
        /// The directory of the export.
        to: PathBuf,
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory for an export has something else in it.
    #[error("{dir} has {found} in it; an export goes into a new directory")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Its content.
        found: String,
    },
    /// The target has a queue that the export has, too.
    #[error(
        "the target has a queue {queue} of project {project} already, with other contents: {difference}; nothing was imported. \
         Delete the queue there, or import into another data directory or schema"
    )]
    Taken {
        /// The name of the queue.
        queue: String,
        /// Its project.
        project: String,
        /// In what they differ.
        difference: String,
    },
    /// Another import into the target has not finished.
    #[error(
        "another import into {target} has not finished, of the export {id}: finish that first (the same `dms-worker data import` \
         again), or begin with an empty target"
    )]
    OtherImport {
        /// The target.
        target: String,
        /// The export.
        id: String,
    },
    /// A message of the source is damaged.
    #[error(
        "message {place} of queue {queue} ({stream}) is damaged: {reason}; with --skip-damaged damaged messages are left out, \
         and groups pass over them"
    )]
    DamagedMessage {
        /// The queue.
        queue: String,
        /// `messages`, `delayed`, or the dead letters of a group.
        stream: String,
        /// Its sequence number.
        place: u64,
        /// The damage.
        reason: String,
    },
    /// The target does not hold what the export has.
    #[error(
        "the check after the import failed: queue {queue} of project {project}: {difference}. The target cannot be served; begin \
         again with an empty one, and report this"
    )]
    Mismatch {
        /// The name of the queue.
        queue: String,
        /// Its project.
        project: String,
        /// In what they differ.
        difference: String,
    },
    /// The caller ended it.
    #[error("it was interrupted; run the same command again to continue")]
    Interrupted,
}

impl TransferError {
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        Self::File { file: file.to_owned(), source }
    }

    pub(crate) fn store(what: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let what = what.into();
        move |error| Self::Store { what, reason: error.to_string() }
    }
}
