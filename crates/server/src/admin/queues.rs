//! `/admin/queues`: all queues with their groups and counters.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    broker::{GroupOverview, QueueOverview},
    clock::millis,
    http::{error::ApiError, json::Json, query::Query},
    state::AppState,
};

/// A queue with its groups in the answer.
#[derive(Debug, Serialize)]
pub(super) struct QueueSummary {
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

/// `/admin/queues?project=…`: the queues of a project, or of all projects.
pub(super) async fn list(State(app): State<Arc<AppState>>, query: Query) -> Response {
    let wanted = query.first("project");
    let queues = match app.broker.overview_of_all().await {
        Ok(queues) => queues.into_iter(),
        Err(error) => return ApiError::from(error).into_response(),
    };
    let shown = queues.filter(|queue| wanted.is_none_or(|project| queue.project.as_str() == project));
    Json(shown.map(view).collect::<Vec<_>>()).into_response()
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
