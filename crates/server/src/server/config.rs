//! [`ServerConfig`]: the settings of a server.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use dms_protocol::secret::Secret;

use crate::{
    auth::project::Project, broker::embedded::EmbeddedConfig, clock::Clock, faults::FaultPlan, net::limits::HttpLimits,
    net::tls_files::TlsFiles, server::mqs::MqsConfig,
};

/// The settings of a [`Server`](crate::Server). The default is a server in memory, without sockets, open to every caller.
///
/// ```
/// use dms_server::{Project, ServerConfig};
///
/// let config = ServerConfig::default()
///     .projects(vec![Project::new("shop").access_key("AK", "secret")])
///     .data_dir(std::path::PathBuf::from("./dms-data"));
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The address of the API; none by default. Without it, only callers in the same process reach the server.
    pub listen: Option<SocketAddr>,
    /// The address of health, metrics and peek; none by default. An address that is not loopback needs `admin_token` and
    /// `admin_tls`.
    pub admin: Option<SocketAddr>,
    /// The bearer token of the admin address; none by default. Health needs no token.
    pub admin_token: Option<Secret>,
    /// The bearer token with which callers of the admin address may read and change nothing; none by default. It needs
    /// `admin_token` beside it.
    pub admin_read_token: Option<Secret>,
    /// Whether the read token shows bodies and attributes of messages; false by default.
    pub admin_read_token_sees_bodies: bool,
    /// The dashboard at the admin address.
    #[cfg(feature = "dashboard")]
    pub dashboard: crate::DashboardOptions,
    /// The certificate of the admin address; none by default (plain HTTP).
    pub admin_tls: Option<TlsFiles>,
    /// Further names and addresses, without ports, of a server without credentials, for a proxy that forwards `Host`. By
    /// default only `localhost` and loopback addresses.
    pub hosts: Vec<String>,
    /// The certificate of the API; none by default (plain HTTP).
    pub tls: Option<TlsFiles>,
    /// The API of ROMA Connect MQS; none by default.
    pub mqs: Option<MqsConfig>,
    /// The directory that keeps the messages; none by default (in memory). It is created if it is missing, and one process at a
    /// time may use it. Needs the feature `disk`.
    pub data_dir: Option<PathBuf>,
    /// The PostgreSQL that keeps the messages instead of `data_dir`; none by default.
    #[cfg(feature = "postgres")]
    pub postgres: Option<crate::store::postgres::PostgresConfig>,
    /// The projects. Unless one of them has keys or users, every caller may use every project.
    pub projects: Vec<Project>,
    /// The region in the catalogue of tokens; `local` by default.
    pub region: String,
    /// How long a token is valid; 24 hours by default.
    pub token_lifetime: Duration,
    /// The limits of connections and requests.
    pub limits: HttpLimits,
    /// The faults to inject; none by default.
    pub faults: FaultPlan,
    /// The behaviour of the broker. The quotas of the projects are added to it.
    pub broker: EmbeddedConfig,
    /// Whether the server announces its extensions to the API and accepts them; true by default. Without them it behaves like a
    /// service that has none, for tests of clients.
    pub extensions: bool,
    /// The number of groups with their own metrics, the oldest first; 10,000 by default. All others share one set of metrics, so that
    /// the number of series is bounded. With 0 no queue and no group is named.
    pub metrics_max_groups: usize,
    /// The wall clock. Default: the system's clock.
    pub clock: Clock,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: None,
            admin: None,
            admin_token: None,
            admin_read_token: None,
            admin_read_token_sees_bodies: false,
            #[cfg(feature = "dashboard")]
            dashboard: crate::DashboardOptions::default(),
            admin_tls: None,
            hosts: Vec::new(),
            tls: None,
            mqs: None,
            data_dir: None,
            #[cfg(feature = "postgres")]
            postgres: None,
            projects: Vec::new(),
            region: "local".to_owned(),
            token_lifetime: Duration::from_secs(24 * 3600),
            limits: HttpLimits::default(),
            faults: FaultPlan::default(),
            broker: EmbeddedConfig::default(),
            extensions: true,
            metrics_max_groups: 10_000,
            clock: Clock::system(),
        }
    }
}

impl ServerConfig {
    /// Sets the address of the API; none by default.
    pub fn listen(mut self, listen: impl Into<Option<SocketAddr>>) -> Self {
        self.listen = listen.into();
        self
    }

    /// Sets the address of health, metrics and peek; none by default.
    pub fn admin(mut self, admin: impl Into<Option<SocketAddr>>) -> Self {
        self.admin = admin.into();
        self
    }

    /// Sets the bearer token of the admin address; none by default.
    pub fn admin_token(mut self, admin_token: impl Into<Option<Secret>>) -> Self {
        self.admin_token = admin_token.into();
        self
    }

    /// Sets the bearer token with which callers of the admin address may only read; none by default.
    pub fn admin_read_token(mut self, admin_read_token: impl Into<Option<Secret>>) -> Self {
        self.admin_read_token = admin_read_token.into();
        self
    }

    /// Sets whether the read token shows bodies and attributes of messages; false by default.
    pub fn admin_read_token_sees_bodies(mut self, sees_bodies: bool) -> Self {
        self.admin_read_token_sees_bodies = sees_bodies;
        self
    }

    /// Sets the dashboard at the admin address. By default it is served, and changes nothing without a token.
    #[cfg(feature = "dashboard")]
    pub fn dashboard(mut self, dashboard: crate::DashboardOptions) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// Sets the certificate of the admin address; none by default (plain HTTP).
    pub fn admin_tls(mut self, admin_tls: impl Into<Option<TlsFiles>>) -> Self {
        self.admin_tls = admin_tls.into();
        self
    }

    /// Sets further names and addresses of a server without credentials; none by default.
    pub fn hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the certificate of the API's address; none by default (plain HTTP).
    pub fn tls(mut self, tls: impl Into<Option<TlsFiles>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// Sets the API of ROMA Connect MQS; none by default.
    pub fn mqs(mut self, mqs: impl Into<Option<MqsConfig>>) -> Self {
        self.mqs = mqs.into();
        self
    }

    /// Sets the directory that keeps the messages; none by default (in memory).
    pub fn data_dir(mut self, data_dir: impl Into<Option<PathBuf>>) -> Self {
        self.data_dir = data_dir.into();
        self
    }

    /// Sets the PostgreSQL that keeps the messages instead of a directory; none by default.
    #[cfg(feature = "postgres")]
    pub fn postgres(mut self, postgres: impl Into<Option<crate::store::postgres::PostgresConfig>>) -> Self {
        self.postgres = postgres.into();
        self
    }

    /// Sets the projects; none by default.
    pub fn projects(mut self, projects: Vec<Project>) -> Self {
        self.projects = projects;
        self
    }

    /// Sets the region in the catalogue of tokens; `local` by default.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// Sets how long a token is valid; 24 hours by default.
    pub fn token_lifetime(mut self, token_lifetime: Duration) -> Self {
        self.token_lifetime = token_lifetime;
        self
    }

    /// Sets the limits of connections and requests; see [`HttpLimits`] for the defaults.
    pub fn limits(mut self, limits: HttpLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the faults to inject; none by default.
    pub fn faults(mut self, faults: FaultPlan) -> Self {
        self.faults = faults;
        self
    }

    /// Sets the behaviour of the broker; see [`EmbeddedConfig`] for the defaults.
    pub fn broker(mut self, broker: EmbeddedConfig) -> Self {
        self.broker = broker;
        self
    }

    /// Sets whether the server announces its extensions to the API and accepts them; true by default.
    pub fn extensions(mut self, extensions: bool) -> Self {
        self.extensions = extensions;
        self
    }

    /// Sets the number of groups with their own metrics; 10,000 by default.
    pub fn metrics_max_groups(mut self, metrics_max_groups: usize) -> Self {
        self.metrics_max_groups = metrics_max_groups;
        self
    }

    /// Sets the wall clock; the system's by default.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}
