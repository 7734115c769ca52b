//! [`MqsConfig`]: the settings of the listener for clients of ROMA Connect MQS.

use std::net::SocketAddr;

use crate::net::tls_files::TlsFiles;

/// The REST API of ROMA Connect MQS, on a separate listener, over the queues of the server.
///
/// A topic is a queue, and a group is created when it first consumes. The SASL user and password of a client are an access key of
/// the server and its secret. Paths of this API name no project: the first project of the key counts, and on an open server the first
/// project of the configuration.
///
/// # Examples
/// ```
/// use dms_server::{MqsConfig, Project, ServerConfig};
///
/// let mqs = MqsConfig::new().listen(std::net::SocketAddr::from(([127, 0, 0, 1], 9292))).auto_create(false);
/// let config = ServerConfig::default().projects(vec![Project::new("shop")]).mqs(mqs);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MqsConfig {
    /// The address; none by default. Without it, only callers in the same process reach the API.
    pub listen: Option<SocketAddr>,
    /// The certificate of the address; none by default (plain HTTP). Clients of the hosted service expect one.
    pub tls: Option<TlsFiles>,
    /// Whether a topic is created when a request first names it; true by default. The caller needs the right to manage the queue.
    pub auto_create: bool,
}

impl Default for MqsConfig {
    fn default() -> Self {
        Self { listen: None, tls: None, auto_create: true }
    }
}

impl MqsConfig {
    /// No address yet, and topics are created when they are first named.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the address; none by default.
    pub fn listen(mut self, listen: impl Into<Option<SocketAddr>>) -> Self {
        self.listen = listen.into();
        self
    }

    /// Sets the certificate of the address; none by default (plain HTTP).
    pub fn tls(mut self, tls: impl Into<Option<TlsFiles>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// Sets whether missing topics are created; true by default.
    pub fn auto_create(mut self, auto_create: bool) -> Self {
        self.auto_create = auto_create;
        self
    }
}
