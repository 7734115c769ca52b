//! What a server is started with.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use dms_protocol::secret::Secret;

use crate::{
    auth::{accounts::Accounts, project::Project},
    broker::embedded::EmbeddedConfig,
    clock::Clock,
    faults::FaultPlan,
    net::limits::HttpLimits,
    net::tls::TlsFiles,
    server::error::ServerError,
};

/// The settings of a [`Server`](crate::Server). The default is a server in memory, without sockets, open to any caller.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address of the API; none (the default): no socket, in-process callers only.
    pub listen: Option<SocketAddr>,
    /// The address of health, metrics and peek; none by default. Other addresses than loopback need `admin_token` and
    /// `admin_tls`.
    pub admin: Option<SocketAddr>,
    /// The bearer token that all but health asks for at the admin address; none by default.
    pub admin_token: Option<Secret>,
    /// The certificate of the admin address; none (the default): plain HTTP.
    pub admin_tls: Option<TlsFiles>,
    /// Further names and addresses, without ports, by which callers may call a server that asks for no credentials, as
    /// behind a proxy that passes `Host` on; none (the default): `localhost` and loopback addresses only.
    pub hosts: Vec<String>,
    /// The certificate of the API's address; none (the default): plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where messages are kept; none (the default): in memory.
    pub data_dir: Option<PathBuf>,
    /// The projects. While none of them has keys or users, any caller may use any project.
    pub projects: Vec<Project>,
    /// The region in the catalogue of tokens; `local`.
    pub region: String,
    /// How long a token is good; 24 hours.
    pub token_lifetime: Duration,
    /// The limits of connections and requests.
    pub limits: HttpLimits,
    /// What goes wrong on purpose; nothing by default.
    pub faults: FaultPlan,
    /// How the broker behaves; the quotas of projects are added to its own.
    pub broker: EmbeddedConfig,
    /// Whether the server's extensions are announced and obeyed; true. Without them it is as a service that never had
    /// any, for tests of clients.
    pub extensions: bool,
    /// The wall clock; the system's.
    pub clock: Clock,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: None,
            admin: None,
            admin_token: None,
            admin_tls: None,
            hosts: Vec::new(),
            tls: None,
            data_dir: None,
            projects: Vec::new(),
            region: "local".to_owned(),
            token_lifetime: Duration::from_secs(24 * 3600),
            limits: HttpLimits::default(),
            faults: FaultPlan::default(),
            broker: EmbeddedConfig::default(),
            extensions: true,
            clock: Clock::system(),
        }
    }
}

impl ServerConfig {
    /// Checks the projects with their keys and users as [`Server::bind`](crate::Server::bind) does, without starting anything.
    ///
    /// # Errors
    /// [`ServerError::Config`] with a sentence about the first that contradicts another or itself.
    pub fn check(&self) -> Result<(), ServerError> {
        Accounts::new(self.projects.clone()).map(drop).map_err(ServerError::Config)
    }
}
