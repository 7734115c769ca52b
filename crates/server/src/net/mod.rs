//! Sockets: who may connect, for how long, and with or without TLS.

pub mod connection;
pub mod connection_limit;
pub mod connection_state;
pub mod descriptors;
pub(crate) mod half_close;
pub mod limits;
pub mod listener;
pub(crate) mod peer;
pub(crate) mod tls;
pub(crate) mod waiting_poll;
