//! The parts that `dms-worker-cli` uses: listeners with their limits and checks. Not covered by semantic versioning.

/// Seals [`Broker`](crate::broker::Broker), so that methods can be added to it without breaking other packages.
pub trait Sealed {}

pub use crate::{
    http::{bearer, body, host_check},
    metrics::exposition,
    net::{connection, connection_limit, connection_state, descriptors, limits, listener},
};
