//! The parts that `dms-worker-cli` uses: listeners with their limits and checks. Not covered by semantic versioning.

pub use crate::{
    broker::sealed::Sealed,
    http::{bearer, body, host_check},
    metrics::exposition,
    net::{connection, connection_limit, connection_state, descriptors, limits, listener},
};
