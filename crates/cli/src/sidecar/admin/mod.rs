//! The admin endpoint of `run`: probes, metrics, status, and control.
//!
//! `/livez`, `/readyz`, `/startupz` and `/metrics` need no token; everything else needs the token, if one is configured.

mod control;
pub(crate) mod state;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    middleware,
    response::Response,
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use prometheus_client::registry::Registry;

use self::state::AdminState;
#[cfg(feature = "dashboard")]
pub(in crate::sidecar) use self::status::Trouble;
use dms_server::internal::{bearer, exposition, host_check};

/// The routes, without the dashboard.
pub(super) fn router(admin: Arc<AdminState>) -> Router {
    let guarded = Router::new()
        .route("/status", get(status::status))
        .route("/scale", get(status::scale))
        .route("/pause", post(control::pause))
        .route("/resume", post(control::resume))
        .route("/drain", post(control::drain))
        .route("/concurrency", post(control::concurrency))
        .route("/log", post(control::log))
        .layer(middleware::from_fn_with_state(admin.guards.clone(), bearer::check_pair));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(status::ready))
        .route("/startupz", get(status::started))
        .route("/metrics", get(metrics))
        .merge(guarded)
        // The fallback is set here, below the layer, so that the rules for hosts and web pages also apply to unknown paths after this
        // router is merged with another one.
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(middleware::from_fn_with_state(admin.host_check.clone(), host_check::check))
        .with_state(admin)
}

async fn metrics(State(admin): State<Arc<AdminState>>, headers: HeaderMap) -> Response {
    let parts =
        [admin.metrics.encode(), admin.producers.encode(), encoded(&admin.connections), admin.configuration.metrics()];
    exposition::answer(&headers, exposition::joined(parts))
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}
