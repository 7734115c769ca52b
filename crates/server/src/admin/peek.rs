//! `/admin/queues/{queue}/groups/{group}/messages`: shows messages without leasing them.

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, State},
    response::Response,
};

use crate::{
    admin::response::answer,
    broker::GroupPath,
    handlers::peek::{self, PeekedMessage},
    http::{codes, error::ApiError, query::Query},
    state::AppState,
};
use dms_protocol::{
    internal::json::quoted,
    queue::{GroupId, QueueId},
};

/// `/admin/queues/{queue}/groups/{group}/messages?stream=messages|deadletters&from=…&max=…`.
pub(super) async fn messages(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    answer(page(&app, &params, &query).await)
}

async fn page(app: &AppState, params: &RawPathParams, query: &Query) -> Result<Vec<PeekedMessage>, ApiError> {
    let param = |name| params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    let (queue, group) = (QueueId::from(param("queue_id")), GroupId::from(param("group_id")));
    let known = app.broker.overview_of_all().await?.into_iter().find(|overview| overview.queue.id == queue);
    let unknown =
        || codes::QUEUE_NOT_FOUND.because(format!("There is no queue with the id {}.", quoted(queue.as_str())));
    let project = known.ok_or_else(unknown)?.project;
    peek::page(&*app.broker, &GroupPath { project, queue, group }, query).await
}
