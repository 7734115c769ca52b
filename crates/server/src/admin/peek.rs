//! `/admin/queues/{queue}/groups/{group}/messages`: shows messages without leasing them.

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, State},
    response::Response,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    admin::response::answer,
    broker::{GroupPath, PeekState, Peeked, Stream},
    clock::millis,
    http::{codes, error::ApiError, query::Query},
    state::AppState,
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, QueueId},
};

/// The maximum number of messages in one answer.
const MAX_SHOWN: usize = 1000;

/// A message in the answer.
#[derive(Debug, Serialize)]
struct PeekedMessage {
    sequence: u64,
    state: &'static str,
    /// Time until the lease ends or the message is due.
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
pub(super) async fn messages(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
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
