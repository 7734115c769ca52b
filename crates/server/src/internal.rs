//! What `dms-worker-cli` shares with this package: listeners with their limits and checks, and the tools of the store.
//!
//! Not for others: it changes without notice.

pub use crate::{
    http::{bearer, body, host_check},
    metrics::exposition,
    net::{connection, connection_limit, connection_state, descriptors, limits, listener},
};
