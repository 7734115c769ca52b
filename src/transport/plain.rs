//! HTTP/1.1 without TLS and past all proxies, over hyper's pool of connections: the layers above it that those need read each URL twice
//! more, and cost about as much for a request as all that is below them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryFutureExt;
use http::{HeaderValue, Uri, header::USER_AGENT};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpStream, time::timeout};
use tower::{BoxError, Service};

use super::{TransportError, answer::whole, outgoing::Outgoing};

/// How a client names itself.
pub(super) const NAME: &str = concat!("dms-worker/", env!("CARGO_PKG_VERSION"));
/// How long an idle connection is kept: below the idle limits of the usual load balancers, so that they do not close first.
pub(super) const IDLE: Duration = Duration::from_secs(20);
/// After how long without a word a peer is asked whether it is there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// For how long bytes may go unacknowledged before a connection is given up.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// How often a peer is asked in vain whether it is there.
const KEEPALIVE_RETRIES: u32 = 3;

/// A pool of plain connections.
#[derive(Clone, Debug)]
pub(super) struct PlainHttp(Client<Connector, Outgoing>);

impl PlainHttp {
    /// Keeps so many idle connections; to connect may take so long.
    pub(super) fn new(pool_size: usize, patience: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_keepalive_interval(Some(KEEPALIVE));
        connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(pool_size)
            .build(Connector { connector, patience });
        Self(client)
    }

    /// As [`Transport::send`](super::Transport::send).
    pub(super) async fn send(
        &self,
        request: http::Request<Bytes>,
        within: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (head, body) = request.into_parts();
        let (body, departure) = Outgoing::new(body);
        let mut request = http::Request::from_parts(head, body);
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(NAME));
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| departure.failed(error))?;
            whole(answer, TransportError::unsure).await
        };
        timeout(within, exchange).await.map_err(|elapsed| departure.timed_out(elapsed))?
    }
}

/// Connects, names looked up, within a time.
#[derive(Clone, Debug)]
struct Connector {
    connector: HttpConnector,
    patience: Duration,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.connector.call(to).map_err(BoxError::from);
        let connecting = timeout(self.patience, connecting);
        Box::pin(async { connecting.await? })
    }
}
