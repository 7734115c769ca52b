//! [`AdminState`]: the workers and registries that the admin endpoint shows and steers.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    config::Config,
    sidecar::{
        assemble::listener::host_check,
        observe::configuration::ConfigurationState,
        reload::log_control::LogControl,
        running::{parts::Parts, shared::Shared},
    },
};
use dms_protocol::internal::current::Current;
use dms_server::internal::{
    bearer::BearerPair,
    host_check::{HostCheck, Remedy},
};
use dms_worker::{client::Client, producer::ProducerMetrics, runtime::RuntimeHandle, worker::WorkerMetrics};

/// The keys that a refusal of a caller names.
const KEYS: Remedy = Remedy { hosts: "admin.hosts", credentials: "admin.token" };

/// What the endpoint shows and steers.
#[derive(Debug)]
pub(crate) struct AdminState {
    pub(super) client: Current<Client>,
    pub(in crate::sidecar) parts: Parts,
    pub(super) runtime: RuntimeHandle,
    pub(super) metrics: WorkerMetrics,
    pub(super) producers: ProducerMetrics,
    pub(super) connections: Registry,
    pub(in crate::sidecar) configuration: ConfigurationState,
    pub(in crate::sidecar) guards: BearerPair,
    pub(in crate::sidecar) host_check: HostCheck,
    pub(super) started: Instant,
    pub(super) log: LogControl,
}

impl AdminState {
    /// The endpoint of a sidecar.
    pub(crate) fn new(
        config: &Config,
        shared: &Shared,
        runtime: RuntimeHandle,
        configuration: ConfigurationState,
        log: LogControl,
        guards: BearerPair,
    ) -> Arc<Self> {
        let mut registry = Registry::default();
        shared.connections.register(&mut registry);
        Arc::new(Self {
            client: shared.client.clone(),
            parts: shared.parts.clone(),
            runtime,
            metrics: shared.metrics.clone(),
            producers: shared.producers.clone(),
            connections: registry,
            configuration,
            guards,
            host_check: host_check(config.admin.token.as_ref(), &config.admin.hosts, KEYS),
            started: Instant::now(),
            log,
        })
    }
}

/// An answer in JSON.
pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
