//! [`ServerError`]: why a server did not start, or did not take a change.

use std::net::SocketAddr;

use dms_protocol::settings::InvalidSettings;

use crate::{
    broker::{BrokerError, embedded::OpenError},
    net::tls_files::TlsError,
};

/// Why a server did not start, or did not take a change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Settings are invalid, or contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidSettings),
    /// The server has ended, so nothing of it can be changed.
    #[error("the server has ended")]
    Ended,
    /// A certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// PostgreSQL could not be reached or used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] crate::store::postgres::PostgresError),
    /// A queue of the configuration could not be created.
    #[error("cannot create the queue {queue} of the project {project}")]
    StartQueue {
        /// The project.
        project: String,
        /// The queue's name.
        queue: String,
        /// The error of the broker.
        #[source]
        source: BrokerError,
    },
    /// The schedules of the configuration could not be set.
    #[error("cannot set the schedules of the project {project}")]
    StartSchedules {
        /// The project.
        project: String,
        /// The error of the broker.
        #[source]
        source: BrokerError,
    },
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
}
