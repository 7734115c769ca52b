//! `/admin/cluster`: the servers that share the queues, and moving shards between them.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;

use crate::{
    admin::response::answer,
    http::{codes, error::ApiError, query::Query},
    state::AppState,
};

/// The answer to a move.
#[derive(Debug, Serialize)]
struct Moved {
    shard: u32,
    to: String,
}

/// The answer to a drain.
#[derive(Debug, Serialize)]
struct Drained {
    member: String,
    draining: bool,
}

/// `GET /admin/cluster`: servers, shards and standbys.
pub(super) async fn status(State(app): State<Arc<AppState>>) -> Response {
    answer(app.broker.cluster().await.map_err(ApiError::from))
}

/// `POST /admin/cluster/move?shard=…&to=…`: has a shard handed over, to the server with the fewest without `to`.
pub(super) async fn shift(State(app): State<Arc<AppState>>, query: Query) -> Response {
    answer(shift_named(&app, &query).await)
}

/// `POST /admin/cluster/drain?member=…&draining=…`: makes a server give its shards away; the server that answers, if `member` is missing.
pub(super) async fn drain(State(app): State<Arc<AppState>>, query: Query) -> Response {
    answer(drain_named(&app, &query).await)
}

async fn shift_named(app: &AppState, query: &Query) -> Result<Moved, ApiError> {
    query.only(&["shard", "to"])?;
    if query.first("shard").is_none() {
        return Err(codes::URL_PARAMETER.because("shard is missing: give the number of the shard to move."));
    }
    let shard = query.number("shard", 0, &(0..=u32::MAX), codes::URL_PARAMETER)?;
    let to = app.broker.move_shard(shard, query.first("to")).await?;
    tracing::info!(shard, to, "an operator has a shard moved");
    Ok(Moved { shard, to })
}

async fn drain_named(app: &AppState, query: &Query) -> Result<Drained, ApiError> {
    query.only(&["member", "draining"])?;
    let draining = query.flag("draining", true)?;
    let member = app.broker.drain(query.first("member"), draining).await?;
    tracing::info!(member, draining, "an operator has set whether a server takes shards");
    Ok(Drained { member, draining })
}
