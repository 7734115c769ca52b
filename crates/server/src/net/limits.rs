//! The limits of connections and single requests.

use std::time::Duration;

/// ConnectionLimit of the admin address at a time.
pub const ADMIN_CONNECTIONS: usize = 256;
/// How long callers without credentials may be idle where credentials are asked for.
pub const STRANGERS_IDLE: Duration = Duration::from_secs(10);

/// The limits of connections and single requests.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// ConnectionLimit at a time; 4096. For a further one the connection that has been idle the longest is closed; it waits
    /// while requests are being answered on all of them.
    pub connections: usize,
    /// The largest request body, in bytes; 1 MiB: 512 KiB of message bodies, attributes and their wrapping.
    pub body_bytes: usize,
    /// The most memory that request bodies take together, in bytes; 256 MiB. Further ones wait for room.
    pub bodies_bytes: usize,
    /// How long a body may take to arrive, waiting for room included; 30 seconds.
    pub body_timeout: Duration,
    /// How long a request's head may take from its first byte, and a TLS handshake; 10 seconds.
    pub head_timeout: Duration,
    /// How long a connection may stay without a request; 75 seconds, above the pools of usual clients.
    pub idle_timeout: Duration,
    /// The same for callers who have not shown credentials, where they are asked for; the same time. The server shortens
    /// it to 10 seconds where there are keys or users.
    pub strangers_idle_timeout: Duration,
    /// How long an answer may take to be written once the caller reads too slowly; 60 seconds.
    pub write_timeout: Duration,
    /// How old a connection gets before it is closed after an answer; one hour.
    pub connection_age: Duration,
    /// How long requests may take to finish once the server stops; 20 seconds.
    pub shutdown_grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            body_bytes: 1 << 20,
            bodies_bytes: 256 << 20,
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            strangers_idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
            shutdown_grace: Duration::from_secs(20),
        }
    }
}
