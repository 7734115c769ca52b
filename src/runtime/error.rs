//! [`AddWorkerError`].

use crate::limits::LimitError;

/// Why a worker was not added to a running runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddWorkerError {
    /// Another worker has its name, or the shared limit has no room for one more poll.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The shutdown of the runtime has started.
    #[error("the runtime is stopping, so no worker can be added")]
    Stopped,
}
