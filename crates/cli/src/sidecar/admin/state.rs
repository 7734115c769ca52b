//! [`AdminState`]: the workers and registries that the admin endpoint shows and steers.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    config::Config,
    sidecar::{
        assemble::{listener::host_check, unit::WorkerUnit},
        backpressure::{app::App, throttle::Throttle},
        observe::recorder::Recorder,
        reload::log_control::LogControl,
    },
};
use dms_server::internal::{
    bearer::BearerPair,
    connection_limit::ConnectionMetrics,
    host_check::{HostCheck, Remedy},
};
use dms_worker::{client::Client, producer::ProducerMetrics, worker::WorkerMetrics};

/// The keys that a refusal of a caller names.
const KEYS: Remedy = Remedy { hosts: "admin.hosts", credentials: "admin.token" };

/// What the endpoint shows and steers.
#[derive(Debug)]
pub(crate) struct AdminState {
    pub(super) client: Client,
    pub(super) workers: Vec<WatchedWorker>,
    pub(super) metrics: WorkerMetrics,
    pub(super) producers: ProducerMetrics,
    pub(super) connections: Registry,
    pub(super) guards: BearerPair,
    pub(super) host_check: HostCheck,
    pub(super) grace: Duration,
    pub(super) started: Instant,
    pub(super) log: LogControl,
}

/// A worker as the endpoint sees it.
#[derive(Debug)]
pub(super) struct WatchedWorker {
    pub(super) name: String,
    pub(super) throttle: Throttle,
    pub(super) recorder: Arc<Recorder>,
    /// The application that its handler calls, if it calls one that can be down.
    pub(super) app: Option<Arc<App>>,
    pub(super) dead_letters: bool,
    pub(super) stale_after: Duration,
    /// It has begun, for `/startupz`.
    pub(super) begun: AtomicBool,
}

impl AdminState {
    /// The endpoint of these workers.
    pub(crate) fn new(
        config: &Config,
        client: Client,
        units: &[WorkerUnit],
        (metrics, producers, connections): (WorkerMetrics, ProducerMetrics, ConnectionMetrics),
        log: LogControl,
        guards: BearerPair,
    ) -> Arc<Self> {
        let watch = |unit: &WorkerUnit| WatchedWorker {
            name: unit.name.clone(),
            throttle: unit.throttle.clone(),
            recorder: unit.recorder.clone(),
            app: unit.app.as_ref().map(|watched| Arc::clone(&watched.app)),
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
            guards,
            host_check: host_check(config.admin.token.as_ref(), &config.admin.hosts, KEYS),
            grace: config.shutdown.grace.get(),
            started: Instant::now(),
            log,
        })
    }
}

/// An answer in JSON.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
