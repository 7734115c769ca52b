//! Sockets: the accept loop, TLS, one HTTP/1.1 connection with its deadlines, and the limit of connections.

pub mod connection;
pub mod connection_limit;
pub mod connection_state;
pub mod descriptors;
pub(crate) mod half_close;
pub mod limits;
pub mod listener;
pub(crate) mod peer;
#[cfg(feature = "postgres")]
pub(crate) mod peer_tls;
mod read_ahead;
pub(crate) mod tls;
pub(crate) mod tls_files;
pub(crate) mod waiting_poll;
