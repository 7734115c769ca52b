//! [`Listener`]: the accept loop with a limit of connections, optional TLS, and graceful shutdown.

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
        read_ahead::ReadAhead,
        tls::Tls,
    },
};

/// The pause after a failed accept, for example because there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections, with or without TLS.
#[derive(Debug)]
pub struct Listener {
    /// Shared with a listener that takes over.
    socket: Arc<TcpListener>,
    tls: Option<Tls>,
    name: &'static str,
    audience: Audience,
    metrics: ConnectionMetrics,
}

impl Listener {
    /// Listens on an address.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let socket = Arc::new(TcpListener::bind(address).await?);
        let (name, audience, metrics) = ("server", Audience::Callers, ConnectionMetrics::default());
        Ok(Self { socket, tls, name, audience, metrics })
    }

    /// A listener on the same socket, with this certificate, which can take over: connections that arrive while the old one
    /// stops are accepted by the new one, so none is refused. The address is free after both have ended.
    pub fn successor(&self, tls: Option<Tls>) -> Self {
        Self {
            socket: Arc::clone(&self.socket),
            tls,
            name: self.name,
            audience: self.audience,
            metrics: self.metrics.clone(),
        }
    }

    /// Sets the name of the listener in metrics and logs, and its audience.
    pub fn named(self, name: &'static str, audience: Audience, metrics: &ConnectionMetrics) -> Self {
        Self { name, audience, metrics: metrics.clone(), ..self }
    }

    /// The address, with the real port if port 0 was requested.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// The URL of the address, with `http` or `https`.
    pub fn url(&self) -> Option<String> {
        self.local_addr().map(|address| format!("{}://{address}", self.scheme()))
    }

    /// The certificate, if the listener uses TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Accepts connections until `stopping` is cancelled, then waits for the requests in progress, at most for the shutdown
    /// grace. Requests carry their [`ConnectionState`] in their extensions, and with TLS also [`Scheme::HTTPS`].
    ///
    /// # Cancel safety
    /// Dropping the future cuts all connections.
    pub async fn run(self, service: impl HttpService, limits: HttpLimits, stopping: CancellationToken) {
        self.run_handing_over(service, limits, stopping.clone(), stopping).await;
    }

    /// As [`run`](Self::run), and stops accepting connections earlier, when `accepting` is cancelled. Between the two the
    /// connections go on, so that one that was just accepted can still send its request.
    pub async fn run_handing_over(
        self,
        service: impl HttpService,
        limits: HttpLimits,
        accepting: CancellationToken,
        stopping: CancellationToken,
    ) {
        let service = move |connection: &Arc<ConnectionState>| {
            let connection = Arc::clone(connection);
            MapRequest::new(service.clone(), move |mut request: Request| {
                request.extensions_mut().insert(Arc::clone(&connection));
                request
            })
        };
        self.run_until(service, limits, accepting, stopping).await;
    }

    /// As [`run`](Self::run), with a service for each connection.
    pub async fn run_each<S: HttpService>(
        self,
        service: impl Fn(&Arc<ConnectionState>) -> S,
        limits: HttpLimits,
        stopping: CancellationToken,
    ) {
        self.run_until(service, limits, stopping.clone(), stopping).await;
    }

    async fn run_until<S: HttpService>(
        self,
        service: impl Fn(&Arc<ConnectionState>) -> S,
        limits: HttpLimits,
        accepting: CancellationToken,
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
        // Dropping the set cuts the connections that outlive the grace, or all of them when this future is dropped.
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                while connections.try_join_next().is_some() {}
                let (stream, peer) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        if let Some(suppressed) = warnings.admit(Instant::now()) {
                            tracing::warn!(listener = self.name, %error, suppressed, "accepting a connection failed; trying again");
                        }
                        slots.make_room();
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                // While this waits for a slot, further connections wait in the queue of the kernel, not in our memory.
                let slot = slots.take(peer.ip().to_canonical()).await;
                let connection = Arc::clone(slot.connection());
                let answers = service(&connection);
                let (tls, limits, stopping) = (self.tls.clone(), limits.clone(), stopping.clone());
                connections.spawn(async move {
                    serve(stream, tls, answers, limits, connection, stopping).await;
                    drop(slot);
                });
            }
        };
        accepting.run_until_cancelled(accept).await;
        drop(self);
        stopping.cancelled().await;
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(limits.shutdown_grace, ended).await.is_err() {
            tracing::warn!(left = connections.len(), "the grace period is over; the remaining connections are closed");
        }
    }
}

/// Serves one connection, after its TLS handshake if there is one.
async fn serve<S: HttpService>(
    stream: TcpStream,
    tls: Option<Tls>,
    service: S,
    limits: HttpLimits,
    connection: Arc<ConnectionState>,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    match tls {
        None => connection::serve(stream, service, limits, connection, stopping).await,
        // In a box, so that connections without TLS take no memory for it.
        Some(tls) => Box::pin(serve_encrypted(stream, tls, service, limits, connection, stopping)).await,
    }
}

async fn serve_encrypted<S: HttpService>(
    stream: TcpStream,
    tls: Tls,
    service: S,
    limits: HttpLimits,
    connection: Arc<ConnectionState>,
    stopping: CancellationToken,
) {
    // In a separate box, whose memory is free after the handshake.
    let handshake = Box::pin(timeout(limits.head_timeout, tls.acceptor().accept(ReadAhead::new(stream))));
    let handshake = stopping.run_until_cancelled(connection.displaced.run_until_cancelled(handshake));
    match handshake.await.flatten() {
        Some(Ok(Ok(stream))) => connection::serve(stream, service, limits, connection, stopping).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("a TLS handshake took too long"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Api;

    /// The size of what a function returns, which is not called.
    fn size_of_answer<A, B, C, D, E, F, R>(_: impl FnOnce(A, B, C, D, E, F) -> R) -> usize {
        size_of::<R>()
    }

    /// Thousands of consumers wait with a connection each.
    #[test]
    fn a_connection_takes_little_memory() {
        let bytes = size_of_answer(serve::<Api>);
        assert!(bytes <= 2_500, "{bytes} bytes");
    }
}
