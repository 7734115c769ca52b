//! [`Server`]: binds the addresses, assembles all parts, and runs until it is stopped.

mod admin_address;
mod checks;
#[cfg(feature = "postgres")]
mod cluster;
pub(crate) mod config;
mod configured;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod mqs;
pub(crate) mod service;
mod startup;

use dms_protocol::{queue::ProjectId, secret::Secret};
use std::{net::SocketAddr, sync::Arc};

use tokio_util::sync::CancellationToken;

use self::{
    admin_address::AdminAddress, config::ServerConfig, error::ServerError, handle::ServerHandle, service::ApiService,
};
use crate::{
    api::{Api, Dialect},
    auth::{authenticator::Authenticator, project::Project},
    broker::Broker,
    faults::Faults,
    http::{
        bearer::BearerAuth,
        body::BodyMemory,
        host_check::{HostCheck, Remedy},
    },
    metrics::{MoreMetrics, ServerMetrics},
    net::{
        connection_limit::{Audience, ConnectionMetrics},
        connection_state::ConnectionState,
        limits::{HttpLimits, MQS_BODY_BYTES, UNSIGNED_IDLE_TIMEOUT},
        listener::Listener,
        tls::Tls,
    },
    state::{
        AppState, Reconfigure, endable_polls::EndablePolls, topic_names::TopicNames,
        waiting_schedules::WaitingSchedules,
    },
};

#[cfg(feature = "dashboard")]
use crate::dashboard::{
    access::gate::{Gate, GateParts},
    product::Product,
    server::Dashboard,
};

/// The configuration key of the names by which a server without credentials may be called.
const HOSTS_KEY: &str = "server.hosts";
/// The configuration key of the token of the admin address.
const ADMIN_TOKEN_KEY: &str = "server.admin_token";
/// The configuration key of its read token.
const ADMIN_READ_TOKEN_KEY: &str = "server.admin.read_token";

/// One peer may use one of this many parts of the memory for bodies.
const BODY_MEMORY_PARTS: usize = 4;

/// A DMS server in this process. A process may have any number of them, each with its own data directory.
///
/// [`Server::run`] serves the sockets. A server without sockets is used through [`Server::service`] and ended by
/// [`Server::close`]. Dropping a server stops it like a crash: answered changes are kept, and its data directory is free a
/// moment later.
///
/// # Examples
/// A server without sockets, for callers in the same process:
///
/// ```
/// use dms_server::{Project, Server, ServerConfig, StartQueue, broker::Broker, queue::NewQueue};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let orders = StartQueue::new(NewQueue::new("orders")).group("billing");
///     let server = Server::bind(ServerConfig::default().projects(vec![Project::new("shop").queue(orders)])).await?;
///     let _api = server.service(); // a tower service, which answers requests of the API
///     assert_eq!(server.broker().overview()[0].groups[0].group.name, "billing");
///     server.close().await;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Server {
    app: Arc<AppState>,
    listener: Option<Listener>,
    admin: AdminAddress,
    mqs: Option<Listener>,
    /// Whether it serves the API of ROMA Connect MQS, with or without a socket of its own.
    speaks_mqs: bool,
    /// The certificate for the other servers of the cluster.
    peers: Option<Tls>,
    /// Whose schedules are set by the owners of their queues, so that the missing ones are looked for.
    with_schedules: Vec<Project>,
}

impl Server {
    /// Opens the store, creates the queues of the configuration, and listens. With PostgreSQL the server may have to wait for the
    /// messages: it listens at once, and refuses requests until it owns them.
    ///
    /// # Errors
    /// When the configuration is invalid, an address is refused or in use, or the store cannot be opened.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping the future closes everything that was opened. Queues that were created stay.
    pub async fn bind(config: ServerConfig) -> Result<Self, ServerError> {
        let authenticator = authenticator(&config)?;
        let polls = Arc::default();
        let (broker, reconfigure) = startup::open(&config, &polls).await?;
        let waiting = startup::create_first(&*broker, &config).await?;
        let projects = config.projects.clone();
        let mut server = Self::assemble(config, authenticator, (broker, reconfigure), polls).await?;
        match waiting {
            Some(waiting) => server.app.waiting_schedules.set(&[], waiting),
            None => server.with_schedules = projects,
        }
        Ok(server)
    }

    /// Creates a server over an existing broker. `data_dir`, the settings of the broker and the queues in `config` are ignored.
    ///
    /// # Errors
    /// When the configuration is invalid, or an address is refused or in use.
    ///
    /// # Cancel safety
    /// Dropping the future closes everything that was opened.
    pub async fn with_broker(config: ServerConfig, broker: Arc<dyn Broker>) -> Result<Self, ServerError> {
        let authenticator = authenticator(&config)?;
        Self::assemble(config, authenticator, (broker, Reconfigure::default()), Arc::default()).await
    }

    async fn assemble(
        config: ServerConfig,
        authenticator: Authenticator,
        (broker, reconfigure): (Arc<dyn Broker>, Reconfigure),
        polls: Arc<EndablePolls>,
    ) -> Result<Self, ServerError> {
        #[cfg(feature = "postgres")]
        if let Some(secret) = broker.shared_secret() {
            authenticator.seal_tokens(secret);
        }
        let peers = broker.peer_certificate();
        let tls = config.tls.map(Tls::load).transpose()?;
        let connections = ConnectionMetrics::default();
        let listener = listen(config.listen, tls).await?;
        let listener = listener.map(|socket| socket.named("server", Audience::Callers, &connections));
        let speaks_mqs = config.mqs.is_some();
        let mqs_config = config.mqs.unwrap_or_default();
        let mqs = listen(mqs_config.listen, mqs_config.tls.map(Tls::load).transpose()?).await?;
        let mqs = mqs.map(|socket| socket.named("server.mqs", Audience::Callers, &connections));
        let admin_tls = config.admin_tls.map(Tls::load).transpose()?;
        let admin = listen(config.admin, admin_tls).await?;
        let admin = admin.map(|socket| socket.named("server.admin", Audience::Operators, &connections));
        let host_check = match authenticator.is_open() {
            true => HostCheck::open(&config.hosts, Remedy { hosts: HOSTS_KEY, credentials: "server.auth" }),
            false => HostCheck::guarded(),
        };
        let admin_auth = BearerAuth::new(config.admin_token.as_ref().map(Secret::expose), ADMIN_TOKEN_KEY);
        let admin_host_check = match admin_auth.asks() {
            true => HostCheck::guarded(),
            false => HostCheck::open(&config.hosts, Remedy { hosts: HOSTS_KEY, credentials: ADMIN_TOKEN_KEY }),
        };
        let admin_read_auth =
            BearerAuth::new(config.admin_read_token.as_ref().map(Secret::expose), ADMIN_READ_TOKEN_KEY);
        #[cfg(feature = "dashboard")]
        let dashboard = config.dashboard.enabled.then(|| {
            Dashboard::new(Gate::new(GateParts {
                token: admin_auth.clone(),
                read_token: admin_read_auth.clone(),
                reader_sees_bodies: config.admin_read_token_sees_bodies,
                host_check: admin_host_check.clone(),
                options: config.dashboard,
                product: Product::Server,
                port: admin.as_ref().and_then(Listener::local_addr).map_or(0, |address| address.port()),
                clock: config.clock,
            }))
        });
        let largest_body = config.limits.body_bytes.max(if speaks_mqs { MQS_BODY_BYTES } else { 0 });
        let first_project =
            config.projects.first().map_or_else(|| ProjectId::new("local"), |project| project.id.clone());
        let app = Arc::new(AppState {
            broker,
            reconfigure,
            stopping: CancellationToken::new(),
            host_check,
            admin_host_check,
            admin_auth,
            admin_read_auth,
            reader_sees_bodies: config.admin_read_token_sees_bodies,
            authenticator,
            faults: Faults::new(&config.faults),
            region: config.region,
            data_dir: config.data_dir,
            body_memory: BodyMemory::new(config.limits.total_body_bytes, largest_body, BODY_MEMORY_PARTS),
            limits: config.limits,
            metrics: ServerMetrics::new(),
            more_metrics: MoreMetrics::default(),
            connections,
            metrics_max_groups: config.metrics_max_groups.into(),
            extensions: config.extensions,
            polls,
            topics: TopicNames::new(first_project, mqs_config.auto_create),
            waiting_schedules: WaitingSchedules::default(),
        });
        let admin = AdminAddress {
            listener: admin,
            #[cfg(feature = "dashboard")]
            dashboard,
        };
        Ok(Self { app, listener, admin, mqs, speaks_mqs, peers, with_schedules: Vec::new() })
    }

    /// The address of the API, with the real port if port 0 was requested; `None` without a socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(Listener::local_addr)
    }

    /// The URL of the admin address, with the real port; `None` without one.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.listener.as_ref().and_then(Listener::url)
    }

    /// The URL of the dashboard; `None` if it is not served.
    #[cfg(feature = "dashboard")]
    pub fn dashboard_url(&self) -> Option<String> {
        let dashboard = self.admin.dashboard.as_ref()?;
        Some(format!("{}{}", self.admin_url()?, dashboard.url("/")))
    }

    /// A link that logs in to the dashboard as the admin token does, once and within ten minutes. A new link ends the one before.
    /// `None` if the dashboard is not served, or has no token.
    #[cfg(feature = "dashboard")]
    pub fn dashboard_login_link(&self) -> Option<String> {
        let path = self.admin.dashboard.as_ref()?.invite()?;
        Some(format!("{}{path}", self.admin_url()?))
    }

    /// The admin address, with the real port if port 0 was requested; `None` without one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.listener.as_ref().and_then(Listener::local_addr)
    }

    /// The URL of the API of ROMA Connect MQS, with the real port; `None` without an address for it.
    pub fn mqs_url(&self) -> Option<String> {
        self.mqs.as_ref().and_then(Listener::url)
    }

    /// The address of the API of ROMA Connect MQS, with the real port if port 0 was requested; `None` without one.
    pub fn mqs_addr(&self) -> Option<SocketAddr> {
        self.mqs.as_ref().and_then(Listener::local_addr)
    }

    /// The URL of the API, `http` or `https`, with the real port; `None` without a socket.
    pub fn url(&self) -> Option<String> {
        self.listener.as_ref().and_then(Listener::url)
    }

    /// The certificate of the API; `None` without TLS. [`Tls::reload`](crate::Tls::reload) replaces it while the server runs.
    pub fn tls(&self) -> Option<&Tls> {
        self.listener.as_ref().and_then(Listener::tls)
    }

    /// The certificates of all addresses. They can be reloaded while the server runs.
    pub fn certificates(&self) -> impl Iterator<Item = &Tls> {
        let listeners = self.listener.iter().chain(&self.admin.listener).chain(&self.mqs);
        listeners.filter_map(Listener::tls).chain(&self.peers)
    }

    /// The API as a service without sockets. Clones share the server.
    pub fn service(&self) -> ApiService {
        ApiService::new(&self.app, Dialect::Dms)
    }

    /// The API of ROMA Connect MQS as a service without sockets; `None` without [`ServerConfig::mqs`].
    pub fn mqs_service(&self) -> Option<ApiService> {
        self.speaks_mqs.then(|| ApiService::new(&self.app, Dialect::Mqs))
    }

    /// Whether the server is open: no project has keys or users, so every caller is admitted.
    pub fn is_open(&self) -> bool {
        self.app.authenticator.is_open()
    }

    /// A handle that changes the server while it runs.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.app)
    }

    /// Adds metrics to the admin address: `encode` returns OpenMetrics text. A second call has no effect.
    #[doc(hidden)]
    pub fn add_metrics(&self, encode: impl Fn() -> String + Send + Sync + 'static) {
        self.app.more_metrics.set(Box::new(encode));
    }

    /// The broker, for calls without HTTP, authentication and request limits.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.app.broker
    }

    /// The injected faults. They can be changed while the server runs.
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// Serves until `shutdown` is ready. Then waiting consume calls are answered with an empty list, requests in progress
    /// complete within the grace period, and the broker is closed.
    ///
    /// # Cancel safety
    /// Dropping the future cuts all connections and leaves the broker open.
    ///
    /// # Errors
    /// None at present.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { app, listener, admin, mqs, with_schedules, .. } = self;
        let stopping = app.stopping.clone();
        // The admin address is served until the end, so that a probe sees that the server is stopping.
        let ended = CancellationToken::new();
        let serve = async {
            tokio::join!(serve(listener, Dialect::Dms, &app, &stopping), serve(mqs, Dialect::Mqs, &app, &stopping),);
            ended.cancel();
        };
        let watch = admin.serve(&app, &ended);
        let stop = async {
            shutdown.await;
            stopping.cancel();
        };
        let served = async { tokio::join!(serve, watch, stop) };
        let schedules = async {
            configured::look_for_schedules(&*app.broker, &with_schedules, &app.waiting_schedules).await;
            configured::set_waiting_schedules(&*app.broker, &app.waiting_schedules).await;
        };
        tokio::select! {
            _ = served => {}
            // It ends only when it is dropped.
            () = schedules => {}
        }
        app.broker.close().await;
        Ok(())
    }

    /// Stops a server that is used in-process. Waiting consume calls are answered and new calls refused. All accepted changes
    /// are durable when this returns.
    ///
    /// # Cancel safety
    /// The server stays closed to new calls although the future was dropped.
    pub async fn close(&self) {
        self.app.stopping.cancel();
        self.app.broker.close().await;
    }
}

/// The authenticator of a configuration that was checked.
fn authenticator(config: &ServerConfig) -> Result<Authenticator, ServerError> {
    config.check()?;
    Ok(Authenticator::new(config.projects.clone(), config.token_lifetime, config.clock)?)
}

async fn serve(listener: Option<Listener>, dialect: Dialect, app: &Arc<AppState>, stopping: &CancellationToken) {
    let api = |connection: &Arc<ConnectionState>| Api::for_connection(Arc::clone(app), dialect, Arc::clone(connection));
    match listener {
        Some(listener) => listener.run_each(api, api_limits(app), stopping.clone()).await,
        None => stopping.cancelled().await,
    }
}

/// Limits of the API. Where credentials are required, callers without them may be idle for a short time only.
fn api_limits(app: &AppState) -> HttpLimits {
    with_strangers(app.limits.clone(), !app.authenticator.is_open())
}

fn with_strangers(limits: HttpLimits, guarded: bool) -> HttpLimits {
    match guarded {
        true => HttpLimits {
            unauthenticated_idle_timeout: limits.unauthenticated_idle_timeout.min(UNSIGNED_IDLE_TIMEOUT),
            ..limits
        },
        false => limits,
    }
}

async fn listen(address: Option<SocketAddr>, tls: Option<Tls>) -> Result<Option<Listener>, ServerError> {
    let Some(address) = address else { return Ok(None) };
    let listener = Listener::bind(address, tls).await.map_err(|source| ServerError::Listen { address, source })?;
    Ok(Some(listener))
}

#[cfg(test)]
mod tests;
