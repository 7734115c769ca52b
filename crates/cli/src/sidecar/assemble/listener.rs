//! The small listeners of a sidecar: the admin endpoint and the publishers.

use std::{net::SocketAddr, time::Duration};

use crate::{
    config::{self, server_settings},
    sidecar::error::SidecarError,
};
use dms_server::{
    HttpLimits, Tls,
    internal::{
        host_check::{HostCheck, Remedy},
        limits::UNSIGNED_IDLE_TIMEOUT,
        listener::Listener,
    },
};

/// Listens on the address that `key` of the configuration names.
///
/// # Errors
/// When it is taken, or not this machine's, or when the certificate cannot be used.
pub(crate) async fn listen(
    address: SocketAddr,
    key: &str,
    tls: Option<&config::Tls>,
) -> Result<Listener, SidecarError> {
    let tls = tls.map(|tls| Tls::load(server_settings::tls(tls))).transpose()?;
    Listener::bind(address, tls).await.map_err(|error| SidecarError::Listen(address, key.to_owned(), error))
}

/// By which names callers may call a listener, and whether web pages may; `keys` stand for it in refusals.
pub(crate) fn host_check(token: Option<&config::Secret>, hosts: &[String], keys: Remedy) -> HostCheck {
    match token {
        Some(_) => HostCheck::guarded(),
        None => HostCheck::open(hosts, keys),
    }
}

/// The limits of a listener with `connections` places, whose requests may take `shutdown_grace` to finish at the end. Where it is
/// `guarded` by a token, callers without it may not be idle for long.
pub(crate) fn limits(connections: usize, guarded: bool, shutdown_grace: Duration) -> HttpLimits {
    let limits = HttpLimits::default().connections(connections).shutdown_grace(shutdown_grace);
    match guarded {
        true => limits.unauthenticated_idle_timeout(UNSIGNED_IDLE_TIMEOUT),
        false => limits,
    }
}
