//! The accept loop: a bounded number of connections, TLS where it is wanted, and an orderly end.

use std::{io, net::SocketAddr, sync::Arc};

use axum::extract::Request;
use http::uri::Scheme;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

use crate::{
    log_limit::Warnings,
    net::{
        connection::{self, HttpService},
        connection_limit::{Audience, ConnectionLimit, ConnectionMetrics},
        connection_state::ConnectionState,
        limits::HttpLimits,
        tls::Tls,
    },
};

/// How long to pause when accepting fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that takes connections, with TLS or without.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
    name: &'static str,
    audience: Audience,
    metrics: ConnectionMetrics,
}

impl Listener {
    /// Listens on an address.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let (name, audience, metrics) = ("server", Audience::Callers, ConnectionMetrics::default());
        Ok(Self { socket, tls, name, audience, metrics })
    }

    /// The same under the name that metrics and logs call it by, and for whom it is.
    pub fn named(self, name: &'static str, audience: Audience, metrics: &ConnectionMetrics) -> Self {
        Self { name, audience, metrics: metrics.clone(), ..self }
    }

    /// The address: the real port where port 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// The address with `http` or `https` in front.
    pub fn url(&self) -> Option<String> {
        self.local_addr().map(|address| format!("{}://{address}", self.scheme()))
    }

    /// What it shows to callers.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Accepts connections until `stopping` is set off, then waits for the requests in progress, no longer than the
    /// grace. With TLS handlers find [`Scheme::HTTPS`] in the request's extensions, and always their [`ConnectionState`].
    pub async fn run(self, service: impl HttpService, limits: HttpLimits, stopping: CancellationToken) {
        let service = move |connection: &Arc<ConnectionState>| {
            let connection = Arc::clone(connection);
            MapRequest::new(service.clone(), move |mut request: Request| {
                request.extensions_mut().insert(Arc::clone(&connection));
                request
            })
        };
        self.run_each(service, limits, stopping).await;
    }

    /// As [`run`](Self::run), with a service for each connection, made for its connection.
    pub async fn run_each<S: HttpService>(
        self,
        service: impl Fn(&Arc<ConnectionState>) -> S,
        limits: HttpLimits,
        stopping: CancellationToken,
    ) {
        let encrypted = self.tls.is_some();
        let service = move |connection: &Arc<ConnectionState>| {
            MapRequest::new(service(connection), move |mut request: Request| {
                if encrypted {
                    request.extensions_mut().insert(Scheme::HTTPS);
                }
                request
            })
        };
        let slots = ConnectionLimit::new(self.name, limits.connections, self.audience, self.metrics.clone());
        let warnings = Warnings::default();
        // Cuts the connections that outlive the grace when this function is left, and all of them when it is dropped.
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                while connections.try_join_next().is_some() {}
                let (stream, peer) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        if let Some(suppressed) = warnings.admit(Instant::now()) {
                            tracing::warn!(listener = self.name, %error, suppressed, "a connection could not be accepted");
                        }
                        slots.make_room();
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                // While it waits, the next ones wait in the kernel's queue, not in our memory.
                let slot = slots.take(peer.ip().to_canonical()).await;
                let connection = Arc::clone(slot.connection());
                let answers = service(&connection);
                let serving =
                    serve(stream, self.tls.clone(), answers, limits.clone(), Arc::clone(&connection), stopping.clone());
                connections.spawn(async move {
                    connection.displaced.run_until_cancelled(serving).await;
                    drop(slot);
                });
            }
        };
        stopping.run_until_cancelled(accept).await;
        drop(self);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.shutdown_grace, ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections outlived the grace period and are cut");
        }
    }
}

/// Serves one connection, after its handshake where there is one.
async fn serve(
    stream: TcpStream,
    tls: Option<Tls>,
    service: impl HttpService,
    limits: HttpLimits,
    connection: Arc<ConnectionState>,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let Some(tls) = tls else { return connection::serve(stream, service, limits, connection, stopping).await };
    let handshake = timeout(limits.head_timeout, tls.acceptor().accept(stream));
    match stopping.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => connection::serve(stream, service, limits, connection, stopping).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("a TLS handshake took too long"),
        None => {}
    }
}
