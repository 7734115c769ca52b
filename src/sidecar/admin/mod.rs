//! The admin endpoint of `run`: probes, metrics, status, and control.
//!
//! `/livez`, `/readyz`, `/startupz` and `/metrics` are open to whoever reaches the address; everything else needs the
//! token where one is configured.

mod control;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{observe::Recorder, start::Unit, throttle::Throttle};
use crate::{
    client::Client,
    config::{Config, Secret},
    worker::Metrics,
};

/// What the endpoint shows and steers.
#[derive(Debug)]
pub(super) struct Admin {
    client: Client,
    workers: Vec<Watch>,
    metrics: Metrics,
    token: Option<Secret>,
    grace: std::time::Duration,
    started: Instant,
}

/// A worker as the endpoint sees it.
#[derive(Debug)]
struct Watch {
    name: String,
    throttle: Throttle,
    recorder: Arc<Recorder>,
    has_app: bool,
    dead_letters: bool,
    stale_after: std::time::Duration,
}

impl Admin {
    /// The endpoint of these workers.
    pub(super) fn new(config: &Config, client: Client, units: &[Unit], metrics: Metrics) -> Arc<Self> {
        let watch = |unit: &Unit| Watch {
            name: unit.name.clone(),
            throttle: unit.throttle.clone(),
            recorder: unit.recorder.clone(),
            has_app: unit.app.is_some(),
            dead_letters: unit.dead_letters,
            stale_after: unit.stale_after,
        };
        Arc::new(Self {
            client,
            workers: units.iter().map(watch).collect(),
            metrics,
            token: config.admin.token.clone(),
            grace: config.shutdown.grace.get(),
            started: Instant::now(),
        })
    }
}

/// The routes.
pub(super) fn router(admin: Arc<Admin>) -> Router {
    let guarded = Router::new()
        .route("/status", get(status::status))
        .route("/scale", get(status::scale))
        .route("/pause", post(control::pause))
        .route("/resume", post(control::resume))
        .route("/drain", post(control::drain))
        .route("/concurrency", post(control::concurrency))
        .layer(middleware::from_fn_with_state(admin.clone(), guard));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(status::ready))
        .route("/startupz", get(status::started))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .with_state(admin)
}

/// An answer in JSON.
fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], admin.metrics.encode()).into_response()
}

/// Lets a request through that has the token, where there is one.
async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let Some(token) = &admin.token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared: how far they agree says nothing about the token.
    if Sha256::digest(given) == Sha256::digest(token.expose()) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "send the token of admin.token as `Authorization: Bearer …`\n")
        .into_response()
}
