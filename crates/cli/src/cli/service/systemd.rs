//! Notifications to systemd: ready, alive, stopping (`Type=notify`).

use std::{convert::Infallible, time::Duration};

/// Tells the service manager that the process is ready.
pub(crate) fn ready() {
    send("READY=1");
}

/// Tells the service manager that the process is stopping.
pub(crate) fn stopping() {
    send("STOPPING=1");
}

/// Sends keep-alive notifications if the service manager expects them (`WatchdogSec=`). Never resolves.
///
/// Each time after a task has been through the runtime: a process whose runtime is stuck is restarted.
pub(crate) async fn watchdog() -> Infallible {
    let Some(limit) = watchdog_limit(|name| std::env::var(name).ok(), std::process::id()) else {
        return std::future::pending().await;
    };
    loop {
        if tokio::spawn(async {}).await.is_ok() {
            send("WATCHDOG=1");
        }
        tokio::time::sleep(limit / 2).await;
    }
}

/// How long this process may stay silent, by the variables that the service manager sets.
fn watchdog_limit(variable: impl Fn(&str) -> Option<String>, own_id: u32) -> Option<Duration> {
    let other = variable("WATCHDOG_PID").is_some_and(|id| id.parse() != Ok(own_id));
    let limit = variable("WATCHDOG_USEC")?.parse().ok().filter(|micros| *micros > 0);
    limit.filter(|_| !other).map(Duration::from_micros)
}

/// Sends a line to the socket in `$NOTIFY_SOCKET`. Without one nobody wants to know; one that does not work is logged.
#[cfg(unix)]
fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let socket = match std::os::unix::net::UnixDatagram::unbound() {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "the service manager cannot be notified"),
    };
    let sent = socket_address(&path).and_then(|address| socket.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be notified");
    }
}

#[cfg(not(unix))]
fn send(_: &str) {}

/// A path, or on Linux with `@` in front a name in the abstract namespace.
#[cfg(unix)]
fn socket_address(path: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt};
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return std::os::unix::net::SocketAddr::from_abstract_name(name);
        }
    }
    std::os::unix::net::SocketAddr::from_pathname(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_by_the_process_that_it_is_meant_for() {
        let limit = |micros: &'static str, id: Option<&'static str>| {
            watchdog_limit(|name| if name == "WATCHDOG_PID" { id } else { Some(micros) }.map(str::to_owned), 7)
        };
        assert_eq!(limit("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(limit("2000000", Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(limit("2000000", Some("8")), None);
        assert_eq!((limit("0", None), limit("soon", None)), (None, None));
        assert_eq!(watchdog_limit(|_| None, 7), None);
    }
}
