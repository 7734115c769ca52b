//! [`RepairError`]: why a tool could not do its work on a data directory.

use std::{io, path::PathBuf};

use crate::store::OpenError;

/// Why a tool failed.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Impossible(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
}
