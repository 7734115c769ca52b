//! The admin endpoint of `run`: probes, metrics, status, and control.
//!
//! `/livez`, `/readyz`, `/startupz` and `/metrics` are open to whoever reaches the address; everything else needs the
//! token where one is configured.

mod control;
mod status;

use std::sync::{Arc, atomic::AtomicBool};

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::{
    config::Config,
    sidecar::{
        assemble::listener::host_check, backpressure::throttle::Throttle, observe::recorder::Recorder,
        reload::log_control::LogControl, start::Unit,
    },
};
use dms_server::internal::{
    bearer::{self, BearerAuth},
    connection_limit::ConnectionMetrics,
    exposition,
    host_check::{self, HostCheck, Remedy},
};
use dms_worker::{client::Client, producer::ProducerMetrics, worker::WorkerMetrics};

/// The keys that a refusal of a caller names.
const KEYS: Remedy = Remedy { hosts: "admin.hosts", credentials: "admin.token" };

/// What the endpoint shows and steers.
#[derive(Debug)]
pub(super) struct Admin {
    client: Client,
    workers: Vec<Watch>,
    metrics: WorkerMetrics,
    producers: ProducerMetrics,
    connections: Registry,
    guard: BearerAuth,
    host_check: HostCheck,
    grace: std::time::Duration,
    started: Instant,
    log: LogControl,
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
    /// It has begun, for `/startupz`.
    begun: AtomicBool,
}

impl Admin {
    /// The endpoint of these workers.
    pub(super) fn new(
        config: &Config,
        client: Client,
        units: &[Unit],
        (metrics, producers, connections): (WorkerMetrics, ProducerMetrics, ConnectionMetrics),
        log: LogControl,
        guard: BearerAuth,
    ) -> Arc<Self> {
        let watch = |unit: &Unit| Watch {
            name: unit.name.clone(),
            throttle: unit.throttle.clone(),
            recorder: unit.recorder.clone(),
            has_app: unit.app.is_some(),
            dead_letters: unit.dead_letters,
            stale_after: unit.stale_after,
            begun: AtomicBool::new(false),
        };
        let mut registry = Registry::default();
        connections.register(&mut registry);
        Arc::new(Self {
            client,
            workers: units.iter().map(watch).collect(),
            metrics,
            producers,
            connections: registry,
            guard,
            host_check: host_check(config.admin.token.as_ref(), &config.admin.hosts, KEYS),
            grace: config.shutdown.grace.get(),
            started: Instant::now(),
            log,
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
        .route("/log", post(control::log))
        .layer(middleware::from_fn_with_state(admin.guard.clone(), bearer::check));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(status::ready))
        .route("/startupz", get(status::started))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .layer(middleware::from_fn_with_state(admin.host_check.clone(), host_check::check))
        .with_state(admin)
}

/// An answer in JSON.
fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    // One exposition of several registries: its end is written once.
    let mut text = admin.metrics.encode();
    for more in [admin.producers.encode(), encoded(&admin.connections)] {
        text.truncate(text.strip_suffix("# EOF\n").unwrap_or(&text).len());
        text.push_str(&more);
    }
    exposition::answer(&headers, text)
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}
