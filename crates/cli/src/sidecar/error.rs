//! [`SidecarError`].

use std::net::SocketAddr;

use dms_protocol::limits::LimitError;
use dms_server::{ServerError, TlsError};
use dms_worker::{
    client,
    runtime::AddWorkerError,
    worker::{InvalidSettings, WorkerError},
};

/// Why a sidecar does not start, or could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// The configuration has neither workers nor publishers nor outboxes.
    #[error("there is nothing to run: the configuration has no workers and no publishers")]
    Nothing,
    /// The embedded server does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The client cannot be built.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The settings of a worker contradict each other.
    #[error("worker {0}: {1}")]
    Settings(String, #[source] InvalidSettings),
    /// The store of a worker's keys cannot be used.
    #[error("worker {0}: deduplicate.store.{1}")]
    Deduplicate(String, String),
    /// The database of an outbox cannot be used.
    #[error("outboxes[{0}].{1}")]
    Outbox(usize, String),
    /// The client of the application behind a worker cannot be built.
    #[error("worker {0}: the HTTP client cannot be set up: {1}")]
    Http(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The program of a worker is not there.
    #[error("worker {0}: handler.command: {1}")]
    Program(String, String),
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {2}; choose another address in {1}")]
    Listen(SocketAddr, String, #[source] std::io::Error),
    /// A certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The shared limits have no room for all workers.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// A worker cannot be added.
    #[error(transparent)]
    Add(#[from] AddWorkerError),
    /// A worker could not go on.
    #[error("worker {0}: {1}")]
    Worker(String, #[source] WorkerError),
    /// A worker panicked.
    #[error("worker {0} died: {1}")]
    Died(String, String),
}
