//! Tells a full disk from everything else that can go wrong with one. Pure.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use crate::store::StoreError;

impl StoreError {
    /// Whether the disk, or what this user may have of it, is full.
    pub(crate) fn is_full(&self) -> bool {
        match self.io_kind() {
            Some(kind) => is_full(kind),
            None => {
                let text = self.to_string().to_ascii_lowercase();
                text.contains("no space left") || text.contains("disk is full")
            }
        }
    }

    /// What the system said, where it said something.
    pub(crate) fn io_kind(&self) -> Option<ErrorKind> {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*self.0);
        while let Some(this) = cause {
            if let Some(error) = this.downcast_ref::<io::Error>() {
                return Some(error.kind());
            }
            cause = this.source();
        }
        None
    }
}

/// Whether this is what the system says of a full disk.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
