//! The API as a service: what connections and callers in the process call.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use tower::Service;

use super::{app::App, rim};

/// The whole API. Not a router of axum: its layers and boxes cost as much as an operation.
#[derive(Clone, Debug)]
pub(super) struct Api {
    app: Arc<App>,
    /// The address of the caller; `None` for callers in the same process.
    peer: Option<IpAddr>,
}

impl Api {
    /// The API for callers in the same process.
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, peer: None }
    }

    /// The API for a connection from this address.
    pub(super) fn for_peer(app: Arc<App>, peer: IpAddr) -> Self {
        Self { app, peer: Some(peer) }
    }
}

impl Service<Request> for Api {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (app, peer) = (Arc::clone(&self.app), self.peer);
        Box::pin(async move { Ok(rim::wrap(&app, peer, request).await) })
    }
}
