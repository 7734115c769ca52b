//! [`ServerError`]: why a server did not start.

use std::net::SocketAddr;

use crate::{
    broker::{BrokerError, embedded::OpenError},
    net::tls::TlsError,
};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A setting is invalid, or contradicts another one.
    #[error("{0}")]
    Config(String),
    /// The server is open and would be reachable from other machines.
    #[error(
        "refusing to listen on {0}: no project has access keys or users, so anybody who reaches the server may use it; \
         add some, or listen on a loopback address such as 127.0.0.1"
    )]
    Unguarded(SocketAddr),
    /// The admin address would be reachable from other machines without a token or without encryption.
    #[error(
        "refusing the admin address {0}: off loopback it needs a token and a certificate; set server.admin_token (or \
         server.admin_token_file) and server.admin_tls, or use a loopback address such as 127.0.0.1"
    )]
    OpenAdmin(SocketAddr),
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
