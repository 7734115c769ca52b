//! [`PlainHttp`]: the fast path for `http://` without a proxy, over hyper's connection pool. reqwest's layers for TLS
//! and proxies read each URL twice more and double the cost of a request.

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

/// The `User-Agent` of a client.
pub(super) const NAME: &str = concat!("dms-worker/", env!("CARGO_PKG_VERSION"));
/// How long an idle connection is kept. It is below the idle timeout of common load balancers, so that they do not
/// close first.
pub(super) const IDLE: Duration = Duration::from_secs(20);
/// The idle time before, and between, TCP keepalive probes.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the connection is closed.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// The number of unanswered keepalive probes before the connection is closed.
const KEEPALIVE_RETRIES: u32 = 3;

/// A pool of connections without TLS.
#[derive(Clone, Debug)]
pub(super) struct PlainHttp(Client<Connector, Outgoing>);

impl PlainHttp {
    /// A pool of at most `pool_size` idle connections. `connect_timeout` bounds connecting.
    pub(super) fn new(pool_size: usize, connect_timeout: Duration) -> Self {
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
            .build(Connector { connector, connect_timeout });
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

/// Connects within a timeout, which includes the look-up of the name.
#[derive(Clone, Debug)]
struct Connector {
    connector: HttpConnector,
    connect_timeout: Duration,
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
        let connecting = timeout(self.connect_timeout, connecting);
        Box::pin(async { connecting.await? })
    }
}
