//! The accept loop: a bounded number of connections, TLS where it is wanted, and an orderly end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::extract::Request;
use http::uri::Scheme;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

use super::{
    config::HttpLimits,
    connection::{self, Answers},
    tls::Tls,
};

/// How long to pause when accepting fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that takes connections, with TLS or without.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
}

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Listener {
    /// Listens on an address.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, tls })
    }

    /// The address: the real port where port 0 was asked for.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// The address with `http` or `https` in front.
    pub(crate) fn url(&self) -> Option<String> {
        self.local_addr().map(|address| format!("{}://{address}", self.scheme()))
    }

    /// What it shows to callers.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// Accepts connections until `stopping` is set off, then waits for the requests in progress, no longer than the
    /// grace. With TLS handlers find [`Scheme::HTTPS`] in the request's extensions, and always its [`Peer`].
    pub(crate) async fn run(self, service: impl Answers, limits: HttpLimits, stopping: CancellationToken) {
        let service = move |peer| {
            MapRequest::new(service.clone(), move |mut request: Request| {
                request.extensions_mut().insert(Peer(peer));
                request
            })
        };
        self.run_each(service, limits, stopping).await;
    }

    /// As [`run`](Self::run), with a service for each connection, made for the address of its peer.
    pub(crate) async fn run_each<S: Answers>(
        self,
        service: impl Fn(IpAddr) -> S,
        limits: HttpLimits,
        stopping: CancellationToken,
    ) {
        let encrypted = self.tls.is_some();
        let service = move |peer: SocketAddr| {
            MapRequest::new(service(peer.ip().to_canonical()), move |mut request: Request| {
                if encrypted {
                    request.extensions_mut().insert(Scheme::HTTPS);
                }
                request
            })
        };
        let permits = Arc::new(Semaphore::new(limits.connections));
        // Cuts the connections that outlive the grace when this function is left, and all of them when it is dropped.
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                while connections.try_join_next().is_some() {}
                // The permit comes first: a connection over the limit waits in the kernel's queue, not in our memory.
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let (stream, peer) = match self.socket.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let serving = serve(stream, self.tls.clone(), service(peer), limits.clone(), stopping.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    serving.await;
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
    service: impl Answers,
    limits: HttpLimits,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let Some(tls) = tls else { return connection::serve(stream, service, limits, stopping).await };
    let handshake = timeout(limits.head_timeout, tls.acceptor().accept(stream));
    match stopping.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => connection::serve(stream, service, limits, stopping).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
        Some(Err(_)) => tracing::debug!("a TLS handshake took too long"),
        None => {}
    }
}
