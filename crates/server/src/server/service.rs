//! [`ApiService`]: the API for callers in the same process.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tower::Service;

use crate::{
    api::{Api, Dialect},
    state::AppState,
};

/// The API of a [`Server`](crate::Server) as a `tower` service, for callers in the same process. Clones share the server.
///
/// It is always ready, and applies the same limits, authentication and faults as the sockets. Such a caller has no address.
///
/// # Cancel safety
/// Dropping the future of a call does not withdraw a change that was already accepted. A dropped consume call leases nothing.
///
/// # Examples
/// ```
/// use dms_server::{Project, Server, ServerConfig};
/// use http::Request;
/// use tower::Service;
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let config = ServerConfig::default().projects(vec![Project::new("shop")]);
///     let server = Server::bind(config).await?;
///     let request = Request::get("/v2/shop/queues").body(String::new())?;
///     let response = server.service().call(request).await?;
///     assert_eq!(response.status(), 200);
///     server.close().await;
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ApiService(Api);

impl ApiService {
    pub(super) fn new(app: &Arc<AppState>, dialect: Dialect) -> Self {
        Self(Api::new(Arc::clone(app), dialect))
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = ApiFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> ApiFuture {
        ApiFuture(self.0.call(request.map(Body::new)))
    }
}

/// The future of a response of [`ApiService`].
pub struct ApiFuture(<Api as Service<Request<Body>>>::Future);

impl std::fmt::Debug for ApiFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiFuture")
    }
}

impl Future for ApiFuture {
    type Output = Result<Response<ApiBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.0.as_mut().poll(cx));
        Poll::Ready(answer.map(|answer| answer.map(ApiBody)))
    }
}

/// The body of a response of [`ApiService`].
#[derive(Debug)]
pub struct ApiBody(Body);

impl hyper::body::Body for ApiBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
