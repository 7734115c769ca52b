//! The limits of connections and single requests.

use std::time::Duration;

/// The maximum number of connections of the admin address.
pub const ADMIN_CONNECTIONS: usize = 256;
/// The largest body of a request in the MQS dialect, in bytes: 2 MB of contents with their wrapping.
pub const MQS_BODY_BYTES: usize = 3 << 20;
/// How long callers without credentials may be idle where credentials are required.
pub const UNSIGNED_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The limits of connections and single requests.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use dms_server::{HttpLimits, ServerConfig};
///
/// let limits = HttpLimits::default().connections(1_000).shutdown_grace(Duration::from_secs(5));
/// let config = ServerConfig::default().limits(limits);
/// assert_eq!(config.limits.body_bytes, 1 << 20);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpLimits {
    /// The maximum number of connections; 4,096. A new one replaces the connection that has been idle the longest, and waits
    /// while all of them answer requests.
    pub connections: usize,
    /// The largest request body, in bytes; 1 MiB, which holds 512 KiB of message bodies with their attributes and wrapping.
    pub body_bytes: usize,
    /// The most memory that request bodies take together, in bytes; 256 MiB. Further bodies wait for memory.
    pub total_body_bytes: usize,
    /// How long a body may take to arrive, including the wait for memory; 30 seconds.
    pub body_timeout: Duration,
    /// How long the head of a request may take from its first byte, and a TLS handshake; 10 seconds.
    pub head_timeout: Duration,
    /// How long a connection may stay without a request; 75 seconds, longer than the connection pools of usual clients keep
    /// one.
    pub idle_timeout: Duration,
    /// The same for callers without credentials, where they are required; 75 seconds. The server shortens it to 10 seconds if
    /// it has keys or users.
    pub unauthenticated_idle_timeout: Duration,
    /// How long an answer may take to be written if the caller reads slowly; 60 seconds.
    pub write_timeout: Duration,
    /// The age at which a connection is closed after an answer; one hour.
    pub connection_age: Duration,
    /// How long requests may take to finish once the server stops; 20 seconds.
    pub shutdown_grace: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            body_bytes: 1 << 20,
            total_body_bytes: 256 << 20,
            body_timeout: Duration::from_secs(30),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            unauthenticated_idle_timeout: Duration::from_secs(75),
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
    pub fn total_body_bytes(mut self, total_body_bytes: usize) -> Self {
        self.total_body_bytes = total_body_bytes;
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

    /// Sets how long a connection without credentials may be idle; 75 seconds by default.
    pub fn unauthenticated_idle_timeout(mut self, unauthenticated_idle_timeout: Duration) -> Self {
        self.unauthenticated_idle_timeout = unauthenticated_idle_timeout;
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
