//! The admin address: health, metrics, and a look at queues that leases nothing.
//!
//! `/livez` and `/readyz` are open to all who reach it, everything else needs the token where one is configured. Without a
//! token and a certificate it is for loopback alone. It changes nothing but what `damaged` skips and `queue_admin`
//! purges or sets, and copies the data directory on request.

mod damaged;
mod queue_changes;
mod storage;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{RawPathParams, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::metrics::exposition;
use crate::{
    api::access_log,
    broker::{BackedUp, GroupOverview, GroupPath, PeekState, Peeked, QueueOverview, Stream},
    clock::millis,
    http::{
        bearer::{self, BearerAuth},
        codes,
        error::ApiError,
        host_check,
        json::Json,
        query::Query,
    },
    metrics::{ScrapedGauges, broker, disk_space},
    state::AppState,
};
use dms_protocol::{
    json::quoted,
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId},
};

/// Messages shown at once.
const MAX_SHOWN: usize = 1000;

/// The router of the admin address.
pub(crate) fn router(app: &Arc<AppState>) -> Router {
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    app.connections.register(&mut registry);
    broker::register(&mut registry, &app.broker);
    disk_space::register(&mut registry, app.data_dir.as_deref());
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/queues", get(queues))
        .route("/admin/damaged", get(damaged::list))
        .route("/admin/damaged/skip", post(damaged::skip))
        .route("/admin/backup", post(backup))
        .route("/admin/storage", get(storage::show))
        .route("/admin/queues/{queue_id}/purge", post(queue_changes::purge))
        .route("/admin/queues/{queue_id}/update", post(queue_changes::update))
        .route("/admin/queues/{queue_id}/groups/{group_id}/messages", get(messages))
        .layer(middleware::from_fn_with_state(app.admin_guard.clone(), check_token))
        .layer(middleware::from_fn(access_log::log_admin));
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(guarded)
        .fallback(async || plain(&codes::URL_NOT_FOUND.plain()))
        .method_not_allowed_fallback(async || plain(&codes::METHOD.plain()))
        .layer(Extension(Arc::new(registry)))
        .layer(middleware::from_fn_with_state(app.admin_check.clone(), host_check::check))
        .with_state(Arc::clone(app))
}

/// Refuses who does not show the token, in the form of the other refusals; a middleware.
async fn check_token(State(guard): State<BearerAuth>, request: Request, next: Next) -> Response {
    match guard.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(remedy) => (bearer::CHALLENGE, plain(&codes::TOKEN_INVALID.because(remedy))).into_response(),
    }
}

/// The answer of an operation: JSON, or an error where no rim writes it.
pub(crate) fn answer<T: Serialize>(result: Result<T, ApiError>) -> Response {
    result.map_or_else(|error| plain(&error), |value| Json(value).into_response())
}

/// An error where no rim writes it.
fn plain(error: &ApiError) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (error.code().status, json, Body::from(error.body(""))).into_response()
}

/// `/readyz`: whether requests would be served, and if not, why.
async fn ready(State(app): State<Arc<AppState>>) -> (StatusCode, String) {
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let troubles = app.broker.storage_troubles();
    if !troubles.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, troubles.iter().map(storage::line).collect());
    }
    match app.broker.usage(&ProjectId::new("readiness")).await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

/// `/metrics`, in the format that the scraper asks for.
async fn metrics(
    State(app): State<Arc<AppState>>,
    Extension(registry): Extension<Arc<Registry>>,
    headers: HeaderMap,
) -> Response {
    let queues = app.broker.overview();
    let oldest = oldest(&app, &queues).await;
    let seen = ScrapedGauges { queues: &queues, oldest: &oldest, storage: size(app.data_dir.clone()).await };
    match app.metrics.scrape(&registry, &seen) {
        Ok(body) => exposition::answer(&headers, body),
        Err(fmt::Error) => plain(&codes::INTERNAL.plain()),
    }
}

/// How old the first message is that each group has not settled; groups that have settled all are left out.
async fn oldest(app: &AppState, queues: &[QueueOverview]) -> HashMap<GroupId, Duration> {
    let now = app.gate.clock().now_ms();
    let mut ages = HashMap::new();
    for queue in queues {
        for group in queue.groups.iter().filter(|group| group.group.available_messages + group.in_flight > 0) {
            let (project, id) = (queue.project.clone(), queue.queue.id.clone());
            let path = GroupPath { project, queue: id, group: group.group.id.clone() };
            let peeked = app.broker.peek(&path, Stream::Messages, 0, 1).await.unwrap_or_default();
            if let Some(first) = peeked.first().filter(|first| !matches!(first.state, PeekState::Delayed(_))) {
                let age = u64::try_from(now.saturating_sub(first.entered_ms)).unwrap_or(0);
                ages.insert(path.group, Duration::from_millis(age));
            }
        }
    }
    ages
}

/// The size of the files in the data directory.
async fn size(directory: Option<PathBuf>) -> u64 {
    let Some(directory) = directory else { return 0 };
    let size = tokio::task::spawn_blocking(move || bytes_in(&directory)).await;
    size.ok().and_then(Result::ok).unwrap_or(0)
}

fn bytes_in(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
        // What was removed meanwhile has no size.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { bytes_in(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

/// `POST /admin/backup?to=/new/directory`: copies the data directory while everything goes on; with `from=/directory` only if it is
/// this one.
async fn backup(State(app): State<Arc<AppState>>, query: Query) -> Response {
    if let Err(error) = query.only(&["from", "to"]).and_then(|()| is_own(&app, query.first("from"))) {
        return plain(&error);
    }
    let to = match query.first("to").map(PathBuf::from) {
        Some(to) if to.is_absolute() => to,
        _ => return plain(&codes::URL_PARAMETER.because("to is missing, or is no absolute path of a new directory.")),
    };
    match app.broker.back_up(&to).await {
        Ok(BackedUp { commit, files, bytes }) => {
            tracing::info!(to = %to.display(), commit, files, bytes, "the data directory was copied");
            Json(serde_json::json!({ "commit": commit, "files": files, "bytes": bytes })).into_response()
        }
        Err(error) => plain(&error.into()),
    }
}

/// Refuses a directory that is not the one of this server.
fn is_own(app: &AppState, from: Option<&str>) -> Result<(), ApiError> {
    let (Some(from), Some(own)) = (from, &app.data_dir) else { return Ok(()) };
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(Path::new(from)) == real(own) {
        return Ok(());
    }
    let text = format!("This server's data directory is {}, not {}.", own.display(), quoted(from));
    Err(codes::URL_PARAMETER.because(text))
}

/// A queue with its groups, as `/admin/queues` shows it.
#[derive(Debug, Serialize)]
struct QueueSummary {
    project: String,
    id: String,
    name: String,
    mode: &'static str,
    retention_ms: u64,
    delete_when_settled: bool,
    produced_messages: u64,
    delayed_messages: u64,
    damaged_delayed_messages: u64,
    groups: Vec<GroupSummary>,
}

#[derive(Debug, Serialize)]
struct GroupSummary {
    id: String,
    name: String,
    consumed_messages: u64,
    available_messages: u64,
    leased_messages: u64,
    produced_dead_letters: u64,
    available_dead_letters: u64,
    damaged_messages: u64,
    damaged_dead_letters: u64,
    waiting_polls: u64,
}

/// `/admin/queues?project=…`: the queues of a project, of all of them without the parameter.
async fn queues(State(app): State<Arc<AppState>>, query: Query) -> Json<Vec<QueueSummary>> {
    let wanted = query.first("project");
    let queues = app.broker.overview().into_iter();
    let shown = queues.filter(|queue| wanted.is_none_or(|project| queue.project.as_str() == project));
    Json(shown.map(view).collect())
}

fn view(overview: QueueOverview) -> QueueSummary {
    let group = |overview: GroupOverview| GroupSummary {
        id: overview.group.id.to_string(),
        name: overview.group.name,
        consumed_messages: overview.group.consumed_messages,
        available_messages: overview.group.available_messages,
        leased_messages: overview.in_flight,
        produced_dead_letters: overview.group.produced_dead_letters.unwrap_or(0),
        available_dead_letters: overview.group.available_dead_letters.unwrap_or(0),
        damaged_messages: overview.damaged,
        damaged_dead_letters: overview.damaged_dead_letters,
        waiting_polls: overview.polls,
    };
    QueueSummary {
        project: overview.project.to_string(),
        id: overview.queue.id.to_string(),
        name: overview.queue.name,
        mode: overview.queue.mode.as_str(),
        retention_ms: millis(overview.retention),
        delete_when_settled: overview.delete_when_settled,
        produced_messages: overview.queue.produced_messages,
        delayed_messages: overview.delayed,
        damaged_delayed_messages: overview.damaged_delayed,
        groups: overview.groups.into_iter().map(group).collect(),
    }
}

/// A message as the peek shows it.
#[derive(Debug, Serialize)]
struct PeekedMessage {
    sequence: u64,
    state: &'static str,
    /// Until the lease ends or the delay is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    failures: u32,
    entered_ms: i64,
    /// Why and when it became a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<Arc<DeadLetterInfo>>,
    message: Box<RawValue>,
}

/// `/admin/queues/{queue}/groups/{group}/messages?stream=messages|deadletters&from=…&max=…`.
async fn messages(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    let peeked = peek(&app, &params, &query).await;
    answer(peeked.map(|peeked| peeked.iter().filter_map(message_view).collect::<Vec<_>>()))
}

async fn peek(app: &AppState, params: &RawPathParams, query: &Query) -> Result<Vec<Peeked>, ApiError> {
    let stream = match query.first("stream") {
        None | Some("messages") => Stream::Messages,
        Some("deadletters") => Stream::DeadLetters,
        Some(other) => {
            return Err(
                codes::URL_PARAMETER.because(format!("stream is {other:?}: messages and deadletters are allowed."))
            );
        }
    };
    let from = query.number("from", 0, &(0..=u64::MAX), codes::URL_PARAMETER)?;
    let most = query.number("max", 100, &(1..=MAX_SHOWN), codes::URL_PARAMETER)?;
    let param = |name| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    let (queue, group) = (QueueId::from(param("queue_id")), GroupId::from(param("group_id")));
    let known = app.broker.overview().into_iter().find(|overview| overview.queue.id == queue);
    let project = known.ok_or_else(|| codes::QUEUE_NOT_FOUND.plain())?.project;
    Ok(app.broker.peek(&GroupPath { project, queue, group }, stream, from, most).await?)
}

fn message_view(peeked: &Peeked) -> Option<PeekedMessage> {
    let (state, left) = match peeked.state {
        PeekState::Available => ("available", None),
        PeekState::Leased(left) => ("leased", Some(left)),
        PeekState::Delayed(left) => ("delayed", Some(left)),
    };
    Some(PeekedMessage {
        sequence: peeked.sequence,
        state,
        left_ms: left.map(millis),
        failures: peeked.failures,
        entered_ms: peeked.entered_ms,
        dead_letter: peeked.dead_letter.clone(),
        message: serde_json::from_slice(&peeked.json).ok()?,
    })
}
