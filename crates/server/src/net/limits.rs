//! The limits of connections and single requests.

use std::time::Duration;

/// ConnectionLimit of the admin address at a time.
pub const ADMIN_CONNECTIONS: usize = 256;
/// How long callers without credentials may be idle where credentials are asked for.
pub const STRANGERS_IDLE: Duration = Duration::from_secs(10);

/// The limits of connections and single requests.
#[derive(Clone, Debug)]
#[non_exhaustive]
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

impl HttpLimits {
    /// Sets the maximum number of connections; 4,096 by default.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets the largest request body, in bytes; 1 MiB by default.
    pub fn body_bytes(mut self, body_bytes: usize) -> Self {
        self.body_bytes = body_bytes;
        self
    }

    /// Sets the most memory that request bodies take together, in bytes; 256 MiB by default.
    pub fn bodies_bytes(mut self, bodies_bytes: usize) -> Self {
        self.bodies_bytes = bodies_bytes;
        self
    }

    /// Sets how long a body may take to arrive; 30 seconds by default.
    pub fn body_timeout(mut self, body_timeout: Duration) -> Self {
        self.body_timeout = body_timeout;
        self
    }

    /// Sets how long a head and a TLS handshake may take; 10 seconds by default.
    pub fn head_timeout(mut self, head_timeout: Duration) -> Self {
        self.head_timeout = head_timeout;
        self
    }

    /// Sets how long a connection may be idle; 75 seconds by default.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = idle_timeout;
        self
    }

    /// Sets the same for callers who have not shown credentials; 75 seconds by default.
    pub fn strangers_idle_timeout(mut self, strangers_idle_timeout: Duration) -> Self {
        self.strangers_idle_timeout = strangers_idle_timeout;
        self
    }

    /// Sets how long an answer may take to be written; 60 seconds by default.
    pub fn write_timeout(mut self, write_timeout: Duration) -> Self {
        self.write_timeout = write_timeout;
        self
    }

    /// Sets the age at which a connection is closed after an answer; one hour by default.
    pub fn connection_age(mut self, connection_age: Duration) -> Self {
        self.connection_age = connection_age;
        self
    }

    /// Sets how long requests may take to finish once the server stops; 20 seconds by default.
    pub fn shutdown_grace(mut self, shutdown_grace: Duration) -> Self {
        self.shutdown_grace = shutdown_grace;
        self
    }
}
