//! [`Sidecar`]: everything that `run` runs, assembled from a configuration, so that errors appear before the first message.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, Secret, server_settings, worker_settings::idle_worker},
    sidecar::{
        assemble::{
            connect, listener::listen, outbox::RelayUnit, publisher::PublisherEndpoint, runtime::runtime, unit::unit,
        },
        deliver::{http::target::Target, program::process},
        error::SidecarError,
        observe::configuration::ConfigurationState,
        reload::{controls::Controls, log_control::LogControl},
        running::{parts::Parts, publisher::PublisherKey, shared::Shared},
    },
};
use dms_protocol::internal::current::Current;
use dms_server::{
    Server, ServerError,
    internal::{
        bearer::{BearerAuth, BearerPair},
        connection_limit::{Audience, ConnectionMetrics},
        listener::Listener,
    },
};
use dms_worker::{
    producer::ProducerMetrics,
    runtime::{Runtime, RuntimeHandle},
    transport::InProcess,
    worker::WorkerMetrics,
};

/// Everything of one configuration, ready to run.
#[derive(Debug)]
pub struct Sidecar {
    pub(super) config: Config,
    pub(super) server: Option<Server>,
    pub(super) shared: Shared,
    pub(super) runtime: Runtime,
    pub(super) admin: Option<Listener>,
    /// Who may use the admin endpoint.
    pub(super) admin_guards: BearerPair,
    pub(super) configuration: ConfigurationState,
    pub(super) log: LogControl,
}

impl Sidecar {
    /// Starts the embedded server if there is one, listens on every address, and puts the workers together. Nothing is
    /// consumed yet, and a service elsewhere need not be there yet.
    ///
    /// # Errors
    /// When something cannot work, or an address is taken.
    pub async fn start(config: Config) -> Result<Self, SidecarError> {
        if !config.has_work() {
            return Err(SidecarError::Nothing);
        }
        let server = match config.dms.is_embedded() {
            true => {
                let bound = Server::bind(server_settings::settings(&config.server)).await;
                Some(bound.map_err(|error| named(error, &config))?)
            }
            false => None,
        };
        let embedded = server.as_ref().map(|server| Arc::new(InProcess::new(server.service())));
        let shared = Shared {
            client: Current::new(connect::to_service_of(&config, embedded.as_ref())?),
            metrics: WorkerMetrics::new(),
            producers: ProducerMetrics::new(),
            connections: ConnectionMetrics::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            parts: Parts::default(),
            embedded,
        };
        let runtime = runtime(&config, &shared)?;
        start_parts(&config, &shared, &runtime.handle()).await?;
        let admin = match config.admin.listen {
            Some(address) => {
                let listener = listen(address, "admin.listen", config.admin.tls.as_ref()).await?;
                Some(listener.named("admin", Audience::Operators, &shared.connections))
            }
            None => None,
        };
        let guard = |token: Option<&Secret>, key| BearerAuth::new(token.map(Secret::expose), key);
        let admin_guards = BearerPair {
            token: guard(config.admin.token.as_ref(), "admin.token"),
            read_token: guard(config.admin.read_token.as_ref(), "admin.read_token"),
        };
        let (configuration, log) = (ConfigurationState::default(), LogControl::default());
        Ok(Self { config, server, shared, runtime, admin, admin_guards, configuration, log })
    }

    /// Permits the admin endpoint to change the log filter: `set` applies a filter, or returns the error in it.
    pub fn log_control(mut self, set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.log = LogControl(Some(Arc::new(set)));
        self
    }

    /// The address of the embedded server.
    pub fn server_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().and_then(Server::local_addr)
    }

    /// The address of the admin endpoint.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(Listener::local_addr)
    }

    /// The addresses of the publishers, in the order of the configuration.
    pub fn publisher_addrs(&self) -> Vec<SocketAddr> {
        self.shared.parts.publishers().iter().filter_map(|publisher| publisher.listener.local_addr()).collect()
    }

    /// Where callers reach the embedded server: its address with `http` or `https` in front.
    pub fn server_url(&self) -> Option<String> {
        self.server.as_ref().and_then(Server::url)
    }

    /// Where callers reach the admin endpoint.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.as_ref().and_then(Listener::url)
    }

    /// Where callers reach the publishers, in the order of the configuration.
    pub fn publisher_urls(&self) -> Vec<String> {
        self.shared.parts.publishers().iter().filter_map(|publisher| publisher.listener.url()).collect()
    }

    /// A handle for changes while it runs.
    pub fn controls(&self) -> Controls {
        let server = self.server.iter().flat_map(Server::certificates);
        let admin = self.admin.as_ref().and_then(Listener::tls);
        Controls {
            shared: self.shared.clone(),
            runtime: self.runtime.handle(),
            fixed_certificates: server.chain(admin).cloned().collect(),
            server: self.server.as_ref().map(Server::handle),
            admin: self.admin_guards.clone(),
            configuration: self.configuration.clone(),
        }
    }

    /// The names of the workers.
    pub fn worker_names(&self) -> Vec<String> {
        self.shared.parts.workers().iter().map(|worker| worker.name.clone()).collect()
    }
}

/// Has everything start with the runtime: all listens, and nothing is consumed yet.
async fn start_parts(config: &Config, shared: &Shared, runtime: &RuntimeHandle) -> Result<(), SidecarError> {
    let units = config.workers.iter().map(|worker| unit(worker, config, shared));
    let units = units.collect::<Result<Vec<_>, _>>()?;
    let mut publishers = Vec::new();
    for (place, (publisher, key)) in config.publishers.iter().zip(PublisherKey::all(&config.publishers)).enumerate() {
        publishers.push(PublisherEndpoint::listen(publisher, (place, key), shared).await?);
    }
    let relays = config.outboxes.iter().enumerate();
    let relays = relays.map(|(place, outbox)| RelayUnit::new(place, outbox, shared)).collect::<Result<Vec<_>, _>>()?;

    shared.parts.set_publishers(publishers.iter().map(|publisher| publisher.running.clone()).collect());
    publishers.into_iter().for_each(|publisher| publisher.start(runtime));
    shared.parts.set_outboxes(relays.iter().map(|relay| relay.running.clone()).collect());
    relays.into_iter().for_each(|relay| relay.start(runtime));
    shared.parts.set_workers(units.iter().map(|unit| unit.running.clone()).collect());
    for unit in units {
        unit.start(runtime, &shared.metrics)?;
    }
    Ok(())
}

/// Names the key of an address of the embedded server that cannot be listened on.
fn named(error: ServerError, config: &Config) -> SidecarError {
    match error {
        ServerError::Listen { address, source } => {
            let mqs = config.server.mqs.as_ref().map(|mqs| mqs.listen);
            let key = match Some(address) {
                address if address == config.server.admin_listen() => "server.admin",
                address if address == mqs => "server.mqs.listen",
                _ => "server.listen",
            };
            SidecarError::Listen(address, key.to_owned(), source)
        }
        other => other.into(),
    }
}

/// Checks a configuration as [`Sidecar::start`] does, without starting anything: authorities, settings and programs of workers.
///
/// # Errors
/// When something cannot work; the first is named.
pub fn check(config: &Config) -> Result<(), SidecarError> {
    let client = connect::to_service(config)?;
    for worker in &config.workers {
        let refused = |error| SidecarError::Settings(worker.label(), error);
        idle_worker(&client, worker, config).map_err(refused)?;
        if let Some(http) = &worker.handler.http {
            Target::new(http, 1).map_err(|error| SidecarError::Http(worker.label(), error))?;
        }
        if let Some(command) = &worker.handler.command {
            process::find(&command.run).map_err(|error| SidecarError::Program(worker.label(), error))?;
        }
    }
    Ok(())
}
