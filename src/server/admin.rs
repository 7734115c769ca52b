//! The admin address: health, metrics, and a look at queues that leases nothing.
//!
//! It has no authentication, so it is for loopback alone, and it changes nothing.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Body,
    extract::{RawPathParams, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::{encoding::text, registry::Registry};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    app::App,
    broker::{Broker, GroupPath, PeekState, Peeked, Stream},
    codes,
    error::ApiError,
    json::Json,
    query::Query,
};
use crate::queue::{GroupId, ProjectId, Queue, QueueId};

/// Messages shown at once.
const MAX_SHOWN: usize = 1000;

/// The router of the admin address.
pub(super) fn router(app: &Arc<App>) -> Router {
    let mut registry = Registry::default();
    app.metrics.register(&mut registry);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/admin/queues", get(queues))
        .route("/admin/queues/{queue_id}/groups/{group_id}/messages", get(messages))
        .fallback(async || plain(&codes::URL_NOT_FOUND.plain()))
        .method_not_allowed_fallback(async || plain(&codes::METHOD.plain()))
        .layer(Extension(Arc::new(registry)))
        .with_state(Arc::clone(app))
}

/// An error where no rim writes it.
fn plain(error: &ApiError) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (error.code().status, json, Body::from(error.body(""))).into_response()
}

/// `/readyz`: whether requests would be served.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, String) {
    if app.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match app.broker.usage(&ProjectId::new("readiness")).await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

/// `/metrics`, in the OpenMetrics text format.
async fn metrics(
    State(app): State<Arc<App>>,
    Extension(registry): Extension<Arc<Registry>>,
    headers: HeaderMap,
) -> Response {
    app.metrics.clear_groups();
    for project in app.gate.projects() {
        gauge(&app, &project.id).await;
    }
    let mut body = String::new();
    if text::encode(&mut body, &registry).is_err() {
        return plain(&codes::INTERNAL.plain());
    }
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let kind = if accepted.contains("application/openmetrics-text") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Sets the gauges of a project's groups to what the broker counts now.
async fn gauge(app: &App, project: &ProjectId) {
    let Ok(queues) = app.broker.queues(project).await else { return };
    for queue in queues {
        let Ok(list) = app.broker.groups(project, &queue.id).await else { continue };
        for group in &list.groups {
            app.metrics.group(project, &queue.name, group);
        }
    }
}

/// A queue with its groups, as `/admin/queues` shows it.
#[derive(Debug, Serialize)]
struct QueueView {
    project: String,
    id: String,
    name: String,
    mode: &'static str,
    produced_messages: u64,
    groups: Vec<GroupView>,
}

#[derive(Debug, Serialize)]
struct GroupView {
    id: String,
    name: String,
    consumed_messages: u64,
    available_messages: u64,
    produced_dead_letters: u64,
    available_dead_letters: u64,
}

/// `/admin/queues?project=…`: the queues of a project, of all configured ones without the parameter.
async fn queues(State(app): State<Arc<App>>, query: Query) -> Response {
    let mut views = Vec::new();
    for project in projects(&app, &query) {
        match app.broker.queues(&project).await {
            Ok(queues) => {
                for queue in queues {
                    views.extend(view(&*app.broker, &project, queue).await);
                }
            }
            Err(error) => return plain(&error.into()),
        }
    }
    Json(views).into_response()
}

/// A queue with its groups; nothing if it was deleted meanwhile.
async fn view(broker: &dyn Broker, project: &ProjectId, queue: Queue) -> Option<QueueView> {
    let list = broker.groups(project, &queue.id).await.ok()?;
    let group = |group: crate::queue::ConsumerGroup| GroupView {
        id: group.id.to_string(),
        name: group.name,
        consumed_messages: group.consumed_messages,
        available_messages: group.available_messages,
        produced_dead_letters: group.produced_dead_letters.unwrap_or(0),
        available_dead_letters: group.available_dead_letters.unwrap_or(0),
    };
    Some(QueueView {
        project: project.to_string(),
        id: queue.id.to_string(),
        name: queue.name,
        mode: queue.mode.as_str(),
        produced_messages: queue.produced_messages,
        groups: list.groups.into_iter().map(group).collect(),
    })
}

/// A message as the peek shows it.
#[derive(Debug, Serialize)]
struct MessageView {
    sequence: u64,
    state: &'static str,
    /// Until the lease ends or the delay is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    failures: u32,
    entered_ms: i64,
    message: Box<RawValue>,
}

/// `/admin/queues/{queue}/groups/{group}/messages?stream=messages|deadletters&from=…&max=…&project=…`.
async fn messages(State(app): State<Arc<App>>, params: RawPathParams, query: Query) -> Response {
    match peek(&app, &params, &query).await {
        Ok(peeked) => Json(peeked.iter().filter_map(message_view).collect::<Vec<_>>()).into_response(),
        Err(error) => plain(&error),
    }
}

async fn peek(app: &App, params: &RawPathParams, query: &Query) -> Result<Vec<Peeked>, ApiError> {
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
    for project in projects(app, query) {
        if app.broker.queue(&project, &queue).await.is_ok() {
            return Ok(app.broker.peek(&GroupPath { project, queue, group }, stream, from, most).await?);
        }
    }
    Err(codes::QUEUE_NOT_FOUND.plain())
}

fn message_view(peeked: &Peeked) -> Option<MessageView> {
    let (state, left) = match peeked.state {
        PeekState::Available => ("available", None),
        PeekState::Leased(left) => ("leased", Some(left)),
        PeekState::Delayed(left) => ("delayed", Some(left)),
    };
    Some(MessageView {
        sequence: peeked.sequence,
        state,
        left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        failures: peeked.failures,
        entered_ms: peeked.entered_ms,
        message: serde_json::from_slice(&peeked.json).ok()?,
    })
}

/// The project a request asks about, or all that are configured.
fn projects(app: &App, query: &Query) -> Vec<ProjectId> {
    match query.first("project") {
        Some(project) => vec![ProjectId::from(project)],
        None => app.gate.projects().iter().map(|project| project.id.clone()).collect(),
    }
}
