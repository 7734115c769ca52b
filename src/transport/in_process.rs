//! [`InProcess`]: calls an HTTP service in the same process, without sockets.

use std::{convert::Infallible, error::Error as StdError, fmt, io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::Body;
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{MAX_ANSWER_BYTES, Transport, TransportError};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A transport that calls an HTTP service directly, such as the router of an embedded server. Works with tokio's paused
/// clock.
#[derive(Clone)]
pub struct InProcess {
    service: BoxCloneSyncService<Request<Full<Bytes>>, Answer, Infallible>,
}

impl InProcess {
    /// A transport to `service`.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let service = service.map_response(|answer| answer.map(|body| body.map_err(io::Error::other).boxed_unsync()));
        Self { service: BoxCloneSyncService::new(service) }
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, TransportError> {
        let answer = match self.service.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(TransportError::unsure)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        let (mut parts, body) = request.into_parts();
        // Servers receive the path alone; the authority is in the `Host` header.
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = target.parse::<Uri>().map_err(TransportError::not_sent)?;
        let call = self.call(Request::from_parts(parts, Full::new(body)));
        tokio::time::timeout(timeout, call).await.map_err(TransportError::timed_out)?
    }
}
