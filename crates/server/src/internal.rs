//! What `dms-worker-cli` shares with this package: listeners with their limits and checks, and the tools of the store.
//!
//! Not for others: it changes without notice.

/// Seals [`Broker`](crate::broker::Broker): methods can be added to it without breaking other packages.
pub trait Sealed {}

pub use crate::{
    http::{bearer, body, host_check},
    metrics::exposition,
    net::{connection, connection_limit, connection_state, descriptors, limits, listener},
};
