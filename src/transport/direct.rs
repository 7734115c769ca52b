//! [`DirectHttp`]: requests without a proxy, over a [`Pool`]. reqwest's layers for proxies read each URL twice more and double the
//! cost of a request.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header::USER_AGENT};
use tokio_rustls::rustls::ClientConfig;

use super::{
    TransportError,
    answer::whole,
    outgoing::{failed, timed_out},
    pool::{NoExchange, Pool, PoolLimits},
};

/// The `User-Agent` of a client.
pub(super) const NAME: &str = concat!("dms-worker/", env!("CARGO_PKG_VERSION"));
/// How long an idle connection is kept. It is below the idle timeout of common load balancers, so that they do not
/// close first.
pub(super) const IDLE: Duration = Duration::from_secs(20);

/// A pool of connections to services themselves.
#[derive(Clone, Debug)]
pub(super) struct DirectHttp(Pool);

impl DirectHttp {
    /// A pool of at most `pool_size` idle connections. `connect_timeout` bounds connecting.
    pub(super) fn new(pool_size: usize, connect_timeout: Duration, tls: Arc<ClientConfig>) -> Self {
        let limits = PoolLimits { idle_per_host: pool_size, idle_timeout: IDLE, connect_timeout };
        Self(Pool::with_tls(limits, tls))
    }

    /// As [`Transport::send`](super::Transport::send).
    pub(super) async fn send(
        &self,
        mut request: http::Request<Bytes>,
        within: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(NAME));
        let exchanged = pin!(self.0.exchange(request, within, |answer| whole(answer, TransportError::unsure))).await;
        exchanged.map_err(transport_error).flatten()
    }
}

/// The error of a request without an answer.
fn transport_error(failure: NoExchange) -> TransportError {
    match failure {
        NoExchange::Connect(error) => failed(false, error),
        NoExchange::Broken { error, sent } => failed(sent, error),
        NoExchange::TimedOut { error, sent } => timed_out(sent, error),
    }
}
