//! The way of a request from the connection to its handler.
//!
//! | file | contents |
//! |---|---|
//! | `middleware` | request id, limits of the head, panics, error bodies, metrics |
//! | `admission` | authentication, reading the body, injected faults |
//! | `router` | the table of all routes, authorization, the call of the handler |
//! | `topics` | finds queues and groups by their names, for the MQS dialect |
//! | `access_log` | one line for each change |

pub(crate) mod access_log;
mod admission;
mod middleware;
mod router;
mod topics;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use tower::Service;

use crate::{net::connection_state::ConnectionState, state::AppState};

/// What callers of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The API of the DMS queue service, V2 and V1.0.
    Dms,
    /// The REST API of ROMA Connect MQS.
    Mqs,
}

/// The API as a tower service. It is not an axum router, because the layers and boxes of a router cost as much as an operation.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    app: Arc<AppState>,
    dialect: Dialect,
    /// The connection of the caller; `None` for callers in the same process.
    connection: Option<Arc<ConnectionState>>,
}

impl Api {
    /// The API for callers in the same process.
    pub(crate) fn new(app: Arc<AppState>, dialect: Dialect) -> Self {
        Self { app, dialect, connection: None }
    }

    /// The API for a connection.
    pub(crate) fn for_connection(app: Arc<AppState>, dialect: Dialect, connection: Arc<ConnectionState>) -> Self {
        Self { app, dialect, connection: Some(connection) }
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
        let (app, dialect, connection) = (Arc::clone(&self.app), self.dialect, self.connection.clone());
        // Pinned first, here and down to the handlers: awaiting a future where it is made moves it, and these are large.
        Box::pin(async move { Ok(pin!(middleware::wrap(&app, dialect, connection.as_deref(), request)).await) })
    }
}
