//! The small listeners of a sidecar: the admin endpoint and the publishers.

use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;

use super::error::SidecarError;
use crate::server::HttpLimits;

/// Listens on an address.
///
/// # Errors
/// When it is taken, or not this machine's.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, SidecarError> {
    TcpListener::bind(address).await.map_err(|error| SidecarError::Listen(address, error))
}

/// The limits of a listener of so many connections, whose requests may take so long to finish at the end.
pub(super) fn limits(connections: usize, shutdown_grace: Duration) -> HttpLimits {
    HttpLimits { connections, shutdown_grace, ..HttpLimits::default() }
}
