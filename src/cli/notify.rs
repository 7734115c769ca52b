//! Telling systemd that a service is ready, or ending (`Type=notify`).

/// Tells whoever started this process that it serves now.
pub(crate) fn ready() {
    send("READY=1");
}

/// Tells it that the process is on its way out.
pub(crate) fn stopping() {
    send("STOPPING=1");
}

/// Sends a line to the socket in `$NOTIFY_SOCKET`. Without one nobody wants to know; one that does not work is logged.
#[cfg(unix)]
fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let socket = match std::os::unix::net::UnixDatagram::unbound() {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "the service manager cannot be told"),
    };
    let sent = address(&path).and_then(|address| socket.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(not(unix))]
fn send(_: &str) {}

/// A path, or on Linux with `@` in front a name in the abstract namespace.
#[cfg(unix)]
fn address(path: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt};
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return std::os::unix::net::SocketAddr::from_abstract_name(name);
        }
    }
    std::os::unix::net::SocketAddr::from_pathname(path)
}
