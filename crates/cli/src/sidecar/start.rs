//! [`Sidecar`]: everything that `run` runs, assembled from a configuration, so that errors appear before the first message.

use std::{net::SocketAddr, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, Secret, worker_settings::idle_worker},
    sidecar::{
        assemble::{
            connect,
            listener::listen,
            outbox::Relays,
            server_config,
            unit::{Surroundings, WorkerUnit, unit},
        },
        deliver::{http::target::Target, program::process},
        error::SidecarError,
        publisher::PublisherEndpoint,
        reload::{controls::Controls, log_control::LogControl, secrets::LiveSecrets},
    },
};
use dms_server::{
    Server, ServerError,
    internal::{
        bearer::{BearerAuth, BearerPair},
        connection_limit::{Audience, ConnectionMetrics},
        listener::Listener,
    },
};
use dms_worker::{client::Client, producer::ProducerMetrics, transport::InProcess, worker::WorkerMetrics};

/// Everything of one configuration, ready to run.
#[derive(Debug)]
pub struct Sidecar {
    pub(super) config: Config,
    pub(super) server: Option<Server>,
    pub(super) client: Client,
    pub(super) units: Vec<WorkerUnit>,
    pub(super) publishers: Vec<PublisherEndpoint>,
    pub(super) relays: Relays,
    pub(super) admin: Option<Listener>,
    /// Who may use the admin endpoint.
    pub(super) admin_guards: BearerPair,
    pub(super) metrics: WorkerMetrics,
    pub(super) producers: ProducerMetrics,
    pub(super) connections: ConnectionMetrics,
    pub(super) stopping: CancellationToken,
    /// What ends after the workers.
    pub(super) tasks: TaskTracker,
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
        let stopping = CancellationToken::new();
        let (server, client) = match config.dms.is_embedded() {
            true => {
                let bound = Server::bind(server_config::settings(&config.server)).await;
                let server = bound.map_err(|error| named(error, &config))?;
                let client = connect::in_process(&config, Arc::new(InProcess::new(server.service())))?;
                (Some(server), client)
            }
            false => (None, connect::to_service(&config)?),
        };
        let metrics = WorkerMetrics::new();
        let producers = ProducerMetrics::new();
        let connections = ConnectionMetrics::default();
        let tasks = TaskTracker::new();
        let surroundings =
            Surroundings { stopping: &stopping, tasks: &tasks, withheld: process::withheld(&config.secret_variables) };
        let units = config.workers.iter().map(|worker| unit(worker, &config, &client, &metrics, &surroundings));
        let units = units.collect::<Result<Vec<_>, _>>()?;
        let mut publishers = Vec::new();
        for (place, publisher) in config.publishers.iter().enumerate() {
            let key = format!("publishers[{place}].listen");
            let listener = listen(publisher.listen, &key, publisher.tls.as_ref()).await?;
            let listener = listener.named("publisher", Audience::Callers, &connections);
            publishers.push(PublisherEndpoint::new(publisher, listener, client.clone(), &producers));
        }
        let relays = Relays::new(&config, &client)?;
        let admin = match config.admin.listen {
            Some(address) => {
                let listener = listen(address, "admin.listen", config.admin.tls.as_ref()).await?;
                Some(listener.named("admin", Audience::Operators, &connections))
            }
            None => None,
        };
        let guard = |token: Option<&Secret>, key| BearerAuth::new(token.map(Secret::expose), key);
        let admin_guards = BearerPair {
            token: guard(config.admin.token.as_ref(), "admin.token"),
            read_token: guard(config.admin.read_token.as_ref(), "admin.read_token"),
        };
        let log = LogControl::default();
        Ok(Self {
            config,
            server,
            client,
            units,
            publishers,
            relays,
            admin,
            admin_guards,
            metrics,
            producers,
            connections,
            stopping,
            tasks,
            log,
        })
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
        self.publishers.iter().filter_map(|publisher| publisher.listener().local_addr()).collect()
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
        self.publishers.iter().filter_map(|publisher| publisher.listener().url()).collect()
    }

    /// A handle for changes while it runs.
    pub fn controls(&self) -> Controls {
        let server = self.server.iter().flat_map(Server::certificates);
        let publishers = self.publishers.iter().filter_map(|publisher| publisher.listener().tls());
        let admin = self.admin.as_ref().and_then(Listener::tls);
        let throttles = self.units.iter().map(|unit| (unit.name.clone(), unit.throttle.clone())).collect();
        let certificates = server.chain(publishers).chain(admin).cloned().collect();
        Controls::new(throttles, certificates, self.server.as_ref().map(Server::callers), self.secrets())
    }

    fn secrets(&self) -> LiveSecrets {
        let app = |unit: &WorkerUnit| Some((unit.name.clone(), unit.app.as_ref()?.target.credentials().clone()));
        LiveSecrets {
            client: self.client.clone(),
            apps: self.units.iter().filter_map(app).collect(),
            publishers: self.publishers.iter().map(|publisher| publisher.guard().clone()).collect(),
            admin: self.admin_guards.clone(),
        }
    }

    /// The names of the workers.
    pub fn worker_names(&self) -> Vec<String> {
        self.units.iter().map(|unit| unit.name.clone()).collect()
    }
}

/// Names the key of an address of the embedded server that cannot be listened on.
fn named(error: ServerError, config: &Config) -> SidecarError {
    match error {
        ServerError::Listen { address, source } => {
            let key = if config.server.admin_listen() == Some(address) { "server.admin" } else { "server.listen" };
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
