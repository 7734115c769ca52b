//! `/metrics`: all metrics of the server.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use prometheus_client::registry::Registry;

use crate::{
    http::codes,
    metrics::{ScrapedGauges, broker, disk_space, exposition, groups::SeenQueues},
    state::AppState,
};
use dms_protocol::queue::GroupId;

/// The registry with all metrics of a server.
pub(super) fn registry(app: &AppState) -> Registry {
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    app.connections.register(&mut registry);
    broker::register(&mut registry, &app.broker, app.metrics.seen_queues.clone());
    disk_space::register(&mut registry, app.data_dir.as_deref());
    registry
}

/// `/metrics`, in the format that the scraper asks for.
pub(super) async fn metrics(
    State(app): State<Arc<AppState>>,
    Extension(registry): Extension<Arc<Registry>>,
    headers: HeaderMap,
) -> Response {
    let (queues, oldest) = (app.broker.overview().into(), Arc::new(oldest(&app).await));
    let (max_groups, waiting_schedules) =
        (app.metrics_max_groups.load(Ordering::Relaxed), app.waiting_schedules.count());
    let queues = SeenQueues { queues, oldest, max_groups, waiting_schedules };
    let seen = ScrapedGauges { queues, storage: disk_space::size(app.data_dir.clone()).await };
    match app.metrics.scrape(&registry, seen) {
        Ok(body) => exposition::answer(&headers, app.more_metrics.append_to(body)),
        Err(fmt::Error) => codes::INTERNAL.plain().into_response(),
    }
}

/// The age of the oldest message that each group has not settled. Groups without such messages are left out.
async fn oldest(app: &AppState) -> HashMap<GroupId, Duration> {
    let now = app.authenticator.clock().now_ms();
    let age = |entered: i64| Duration::from_millis(u64::try_from(now.saturating_sub(entered)).unwrap_or(0));
    app.broker.oldest().await.into_iter().map(|(group, entered)| (group, age(entered))).collect()
}
