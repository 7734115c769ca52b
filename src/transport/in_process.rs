//! The transport without sockets: calls a router in the same process.

use std::{convert::Infallible, fmt, time::Duration};

use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use http::Uri;
use tower::ServiceExt;

use super::{MAX_ANSWER_BYTES, Transport, TransportError};

/// Calls a router directly: for an embedded server and for tests. Follows tokio's clock, the paused one too.
#[derive(Clone)]
pub struct InProcess {
    router: Router,
}

impl InProcess {
    /// Calls `router`.
    pub fn new(router: Router) -> Self {
        Self { router }
    }

    async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Bytes>, TransportError> {
        let answer: Result<_, Infallible> = self.router.clone().oneshot(request).await;
        let (parts, body) = match answer {
            Ok(answer) => answer.into_parts(),
            Err(never) => match never {},
        };
        let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await.map_err(TransportError::unsure)?;
        Ok(http::Response::from_parts(parts, body))
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        timeout: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let (mut parts, body) = request.into_parts();
        // A server sees the path alone; the authority is in the `Host` header.
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = target.parse::<Uri>().map_err(TransportError::not_sent)?;
        let call = self.call(http::Request::from_parts(parts, Body::from(body)));
        tokio::time::timeout(timeout, call).await.map_err(TransportError::timed_out)?
    }
}
