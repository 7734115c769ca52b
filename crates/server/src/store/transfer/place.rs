//! [`StoreLocation`]: a data directory or tables in PostgreSQL, opened to be exported or imported into.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use dms_protocol::{internal::file_lock::LockedFile, queue::QueueId};
use serde::{Deserialize, Serialize};

use crate::store::{
    OpenError, Snapshot, Store,
    disk::{
        DiskStore,
        file_ops::sync_directory,
        layout::IMPORTING,
        tools::shadow::{Shadow, hold},
    },
    transfer::{
        error::TransferError,
        format::{make_directory, read_json, write_json},
    },
};
#[cfg(feature = "postgres")]
use crate::store::{PostgresConfig, postgres::claim::Claim, postgres::shards};

/// Where queues are.
#[derive(Clone, Debug)]
pub enum StoreLocation {
    /// A data directory.
    Directory(PathBuf),
    /// Tables in PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresConfig>),
}

/// The content of the file that marks a directory.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    export: String,
}

/// A part of the queues of a place: all of them, or a shard.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) snapshot: Snapshot,
}

/// An opened place. Nobody else uses it meanwhile.
pub(crate) struct Opened {
    pub(crate) parts: Vec<Part>,
    /// Which commits it has, as text.
    pub(crate) state: String,
    kept: Kept,
}

enum Kept {
    /// A directory that is read, and what is opened in place of it. Dropped after the stores.
    Shadow {
        _shadow: Shadow,
        _lock: LockedFile,
    },
    Directory,
    #[cfg(feature = "postgres")]
    Claim(Claim),
}

impl StoreLocation {
    /// How people call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Directory(dir) => format!("the data directory {}", dir.display()),
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => format!("the schema {} in PostgreSQL", config.schema),
        }
    }

    /// Opens it to be read. A directory is not changed.
    pub(crate) fn read(&self) -> Result<Opened, TransferError> {
        match self {
            Self::Directory(dir) => {
                let lock = hold(dir)?;
                refuse_marked(dir, None)?;
                let shadow = Shadow::of(dir);
                let shadow = shadow.map_err(|source| OpenError::Directory { dir: dir.clone(), source })?;
                let (store, snapshot) = DiskStore::open(&shadow.path)?;
                let state = store.state();
                let parts = vec![Part { store: Arc::new(store), snapshot }];
                Ok(Opened { parts, state, kept: Kept::Shadow { _shadow: shadow, _lock: lock } })
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => Ok(Opened::claim(Claim::existing(config)?)),
        }
    }

    /// Opens it to be written by the import of the export with this id. It is created if it is missing.
    pub(crate) fn write(&self, id: &str) -> Result<Opened, TransferError> {
        match self {
            Self::Directory(dir) => {
                make_directory(dir)?;
                refuse_marked(dir, Some(id))?;
                let (store, snapshot) = DiskStore::open_marked(dir)?;
                let parts = vec![Part { store: Arc::new(store), snapshot }];
                Ok(Opened { parts, state: String::new(), kept: Kept::Directory })
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(config) => Ok(Opened::claim(Claim::for_import(config, id)?)),
        }
    }

    /// Whether an import of this export has begun there.
    pub(crate) fn is_marked(&self, opened: &Opened) -> Result<bool, TransferError> {
        match (self, &opened.kept) {
            (Self::Directory(dir), _) => Ok(read_json::<Marker>(&dir.join(IMPORTING))?.is_some()),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), Kept::Claim(claim)) => Ok(claim.is_marked()),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), _) => Ok(false),
        }
    }

    /// Keeps servers from opening it until the import is complete.
    pub(crate) fn mark(&self, opened: &Opened, id: &str) -> Result<(), TransferError> {
        match (self, &opened.kept) {
            (Self::Directory(dir), _) => write_json(&dir.join(IMPORTING), &Marker { export: id.to_owned() }),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), Kept::Claim(claim)) => Ok(claim.mark(Some(id))?),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), _) => Ok(()),
        }
    }

    /// Lets servers open it.
    pub(crate) fn unmark(&self, opened: &Opened) -> Result<(), TransferError> {
        match (self, &opened.kept) {
            (Self::Directory(dir), _) => {
                let marker = dir.join(IMPORTING);
                let removed = match std::fs::remove_file(&marker) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                };
                removed.and_then(|()| sync_directory(dir)).map_err(|error| TransferError::io(&marker, error))
            }
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), Kept::Claim(claim)) => Ok(claim.mark(None)?),
            #[cfg(feature = "postgres")]
            (Self::Postgres(_), _) => Ok(()),
        }
    }
}

/// Refuses a directory into which something else is being imported.
fn refuse_marked(dir: &Path, own: Option<&str>) -> Result<(), TransferError> {
    match read_json::<Marker>(&dir.join(IMPORTING))? {
        Some(marker) if own.is_none() => {
            Err(OpenError::Importing { dir: dir.to_owned(), export: marker.export }.into())
        }
        Some(marker) if own != Some(&marker.export) => {
            let target = StoreLocation::Directory(dir.to_owned()).name();
            Err(TransferError::OtherImport { target, id: marker.export })
        }
        _ => Ok(()),
    }
}

impl Opened {
    #[cfg(feature = "postgres")]
    fn claim(mut claim: Claim) -> Self {
        let parts = std::mem::take(&mut claim.shards).into_iter();
        let parts = parts.map(|(store, snapshot)| Part { store: Arc::new(store), snapshot }).collect();
        Self { parts, state: claim.state.clone(), kept: Kept::Claim(claim) }
    }

    /// The part that a queue belongs to.
    pub(crate) fn part_of(&self, queue: &QueueId) -> usize {
        self.parts.iter().position(|part| part.store.takes_queue(queue)).unwrap_or(0)
    }

    /// Notes, before a queue is created, which part it is in, if that does not follow from its name.
    pub(crate) fn note_place(&self, row: &crate::store::QueueRow) -> Result<(), TransferError> {
        #[cfg(feature = "postgres")]
        if let Kept::Claim(claim) = &self.kept {
            let count = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
            let by_id = shards::of_queue(&row.id, count);
            if shards::of_name(&row.project, &row.name, count) != by_id {
                claim.note_place(row, by_id)?;
            }
        }
        #[cfg(not(feature = "postgres"))]
        let _ = row;
        Ok(())
    }

    /// Releases it. In order, so that opening it again needs no recovery.
    pub(crate) fn close(self) -> Result<(), TransferError> {
        let Self { parts, kept, .. } = self;
        let mut closed = Ok(());
        for part in parts {
            closed = closed.and(part.store.release(true));
        }
        #[cfg(feature = "postgres")]
        if let Kept::Claim(claim) = &kept {
            claim.leave();
        }
        drop(kept);
        closed.map_err(TransferError::store("closing the store failed"))
    }
}
