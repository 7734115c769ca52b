//! [`InProcess`]: calls an HTTP service in the same process, without sockets.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use super::{MAX_ANSWER_BYTES, Transport, TransportError};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The body of a request that [`InProcess`] passes to its service: all bytes at once.
#[derive(Debug)]
pub struct InProcessBody(Full<Bytes>);

impl Body for InProcessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A transport that calls an HTTP service directly, such as the router of an embedded server. Works with tokio's paused
/// clock.
#[derive(Clone)]
pub struct InProcess {
    service: BoxCloneSyncService<Request<InProcessBody>, Answer, Infallible>,
}

impl InProcess {
    /// A transport to `service`.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<InProcessBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let service = service.map_response(|answer| answer.map(|body| body.map_err(io::Error::other).boxed_unsync()));
        Self { service: BoxCloneSyncService::new(service) }
    }

    async fn call(&self, request: Request<InProcessBody>) -> Result<Response<Bytes>, TransportError> {
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
        let call = self.call(Request::from_parts(parts, InProcessBody(Full::new(body))));
        tokio::time::timeout(timeout, call).await.map_err(TransportError::timed_out)?
    }
}
