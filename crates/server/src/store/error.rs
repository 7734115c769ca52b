//! [`StoreError`]: why a call of a store failed.

use std::{
    error::Error,
    io::{self, ErrorKind},
    sync::Arc,
};

/// The cause of a failed call, shared by all callers that wait for it.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// Why a call of a store failed. The variant says what the caller may do next, and whether something was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The call failed and changed nothing: the disk is full, say, or a read failed. The same call may succeed later.
    #[error("{0}")]
    Failed(Cause),
    /// The store cannot keep one of these records, and nothing was changed. The same records are refused again, others are not.
    #[error("{0}")]
    Refused(Cause),
    /// The store no longer belongs to this process: its lock is gone, another process may own it, or it was released. The call changed
    /// nothing. Every later call fails, and no answer may rest on what this process still has in memory.
    #[error("{0}")]
    Lost(Cause),
    /// As [`Lost`](Self::Lost), and this call never will change anything: the owner of the store may make it.
    #[error("{0}")]
    Fenced(Cause),
    /// As [`Lost`](Self::Lost), but it is not known whether this call took effect before.
    #[error("{0}")]
    Unsure(Cause),
}

impl StoreError {
    /// A call that failed and changed nothing.
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(error.into()))
    }

    /// Records that this store cannot keep.
    #[cfg(any(test, feature = "disk", feature = "postgres"))]
    pub(crate) fn refused(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(Arc::from(error.into()))
    }

    /// The store belongs to this process no more.
    #[cfg(any(test, feature = "disk", feature = "postgres"))]
    pub(crate) fn lost(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Lost(Arc::from(error.into()))
    }

    /// The store belongs to this process no more, and the call changed nothing.
    #[cfg(any(test, feature = "postgres"))]
    pub(crate) fn fenced(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Fenced(Arc::from(error.into()))
    }

    /// The store belongs to this process no more, and the call may have taken effect before.
    #[cfg(any(test, feature = "postgres"))]
    pub(crate) fn unsure(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unsure(Arc::from(error.into()))
    }

    /// The cause.
    pub(crate) fn cause(&self) -> &Cause {
        match self {
            Self::Failed(cause)
            | Self::Refused(cause)
            | Self::Lost(cause)
            | Self::Fenced(cause)
            | Self::Unsure(cause) => cause,
        }
    }

    /// The same error with another cause.
    pub(crate) fn map_cause(self, map: impl FnOnce(Cause) -> Cause) -> Self {
        match self {
            Self::Failed(cause) => Self::Failed(map(cause)),
            Self::Refused(cause) => Self::Refused(map(cause)),
            Self::Lost(cause) => Self::Lost(map(cause)),
            Self::Fenced(cause) => Self::Fenced(map(cause)),
            Self::Unsure(cause) => Self::Unsure(map(cause)),
        }
    }

    /// Whether the store belongs to this process no more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Fenced(_) | Self::Unsure(_))
    }

    /// Whether the disk, or this user's quota on it, is full.
    pub(crate) fn is_full(&self) -> bool {
        match self.io_kind() {
            Some(kind) => is_full(kind),
            None => {
                let text = self.to_string().to_ascii_lowercase();
                text.contains("no space left") || text.contains("disk is full")
            }
        }
    }

    /// The kind of the I/O error behind this one, if there is one.
    pub(crate) fn io_kind(&self) -> Option<ErrorKind> {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&**self.cause());
        while let Some(this) = cause {
            if let Some(error) = this.downcast_ref::<io::Error>() {
                return Some(error.kind());
            }
            cause = this.source();
        }
        None
    }
}

/// Whether the operating system reports a full disk with this kind.
pub(crate) fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_behind_any_error() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        assert!(StoreError::new(full()).is_full());
        assert!(StoreError::new(io::Error::new(ErrorKind::QuotaExceeded, "quota")).is_full());
        assert!(StoreError::new("database or disk is full").is_full());
        assert!(!StoreError::new(io::Error::from(ErrorKind::PermissionDenied)).is_full());
    }

    #[test]
    fn the_variant_survives_another_cause() {
        let lost = StoreError::lost("gone").map_cause(|cause| cause);
        assert!(lost.is_lost());
        assert_eq!(lost.to_string(), "gone");
        assert!(!StoreError::refused("too large").is_lost());
    }
}
