//! The DMS server: the API on HTTP, over a [`Broker`].
//!
//! A request passes `listener` and `connection` (sockets, deadlines), `rim` (request id, panics, error body, metrics),
//! `routes`, `admit` (body, caller), and one file per resource: `queues`, `groups`, `send`, `consume`, `ack`. What they
//! refuse they refuse with one of `codes`. In-process callers enter at the router and skip the sockets.
//!
//! Nothing in here knows the client or the worker, and only [`broker`] knows how messages are kept.

pub mod broker;

mod ack;
mod admit;
mod app;
mod body;
mod codes;
mod config;
mod connection;
mod consume;
mod error;
mod groups;
mod json;
mod listener;
mod metrics;
mod paths;
mod query;
mod queues;
mod rim;
mod routes;
mod send;

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::config::{AccessKey, HttpLimits, Project, ServerConfig, StartQueue, User};
use self::{app::App, broker::Broker, metrics::Metrics};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A DMS server in this process.
///
/// Any number of them may live in one process. [`Server::run`] serves the sockets; a server without sockets is used
/// through [`Server::router`] and ended by [`Server::close`].
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    router: Router,
    listener: Option<TcpListener>,
}

impl Server {
    /// A server on top of any broker: `data_dir` and the broker's settings in `config` do not apply.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn with_broker(config: ServerConfig, broker: Arc<dyn Broker>) -> Result<Self, ServerError> {
        let listener = match config.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let app = Arc::new(App {
            broker,
            stopping: CancellationToken::new(),
            limits: config.limits,
            metrics: Metrics::new(),
        });
        Ok(Self { router: routes::router(&app), app, listener })
    }

    /// The address of the API: the real port where port 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The API as a service without sockets; clones share the server.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// What the server runs on.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.app.broker
    }

    /// Serves until `shutdown` is ready: then long polls are answered empty at once, requests in progress are finished
    /// within the grace period, and the broker is closed.
    ///
    /// Dropping the future cuts all connections and leaves the broker open.
    ///
    /// # Errors
    /// None at present.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { app, router, listener } = self;
        let stopping = app.stopping.clone();
        let serve = async {
            match listener {
                Some(listener) => listener::run(listener, router, app.limits.clone(), stopping.clone()).await,
                None => stopping.cancelled().await,
            }
        };
        let stop = async {
            shutdown.await;
            stopping.cancel();
        };
        tokio::join!(serve, stop);
        app.broker.close().await;
        Ok(())
    }

    /// Ends a server that is used in-process: waiting consume calls are answered, new calls refused, and all that was
    /// accepted is durable when this returns.
    pub async fn close(&self) {
        self.app.stopping.cancel();
        self.app.broker.close().await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}
