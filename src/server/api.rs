//! The API as a service: what connections and callers in the process call.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use tower::Service;

use super::{app::App, rim};

/// The whole API. Not a router of axum: its layers and boxes cost as much as an operation.
#[derive(Clone, Debug)]
pub(super) struct Api(Arc<App>);

impl Api {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self(app)
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
        let app = Arc::clone(&self.0);
        Box::pin(async move { Ok(rim::wrap(&app, request).await) })
    }
}
