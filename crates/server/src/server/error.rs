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
    /// A setting contradicts another or itself.
    #[error("{0}")]
    Config(String),
    /// Without keys and users anybody is let in, and so only callers of the same machine may reach the server.
    #[error(
        "refusing to listen on {0}: no project has access keys or users, so anybody who reaches the server may use it; \
         add some, or listen on a loopback address such as 127.0.0.1"
    )]
    Unguarded(SocketAddr),
    /// The admin address would show and change messages for anybody, or tell its token to anybody on the way.
    #[error(
        "refusing the admin address {0}: off loopback it needs a token and a certificate; set server.admin_token (or \
         server.admin_token_file) and server.admin_tls, or use a loopback address such as 127.0.0.1"
    )]
    OpenAdmin(SocketAddr),
    /// The certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A queue of the configuration could not be created.
    #[error("cannot create the queue {queue} of the project {project}")]
    StartQueue {
        /// The project.
        project: String,
        /// The queue's name.
        queue: String,
        /// What the broker said.
        #[source]
        source: BrokerError,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
