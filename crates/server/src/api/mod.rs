//! The way of a request from the connection to its handler.
//!
//! | file | contents |
//! |---|---|
//! | `middleware` | request id, limits of the head, panics, error bodies, metrics |
//! | `admission` | authentication, reading the body, injected faults |
//! | `router` | the table of all routes, authorization, the call of the handler |
//! | `access_log` | one line for each change |

pub(crate) mod access_log;
mod admission;
mod middleware;
mod router;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use tower::Service;

use crate::{net::connection_state::ConnectionState, state::AppState};

/// The API as a tower service. It is not an axum router, because the layers and boxes of a router cost as much as an operation.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    app: Arc<AppState>,
    /// The connection of the caller; `None` for callers in the same process.
    connection: Option<Arc<ConnectionState>>,
}

impl Api {
    /// The API for callers in the same process.
    pub(crate) fn new(app: Arc<AppState>) -> Self {
        Self { app, connection: None }
    }

    /// The API for a connection.
    pub(crate) fn for_connection(app: Arc<AppState>, connection: Arc<ConnectionState>) -> Self {
        Self { app, connection: Some(connection) }
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
        let (app, connection) = (Arc::clone(&self.app), self.connection.clone());
        Box::pin(async move { Ok(middleware::wrap(&app, connection.as_deref(), request).await) })
    }
}
