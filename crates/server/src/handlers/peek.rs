//! The extension `peek`: the messages of a group, shown without leasing them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    broker::{Broker, GroupPath, PeekState, Peeked, Stream},
    clock::millis,
    handlers::request::ApiRequest,
    http::{codes, error::ApiError, json::Json, query::Query},
};
use dms_protocol::message::DeadLetterInfo;

/// The maximum number of messages in one answer.
const MAX_SHOWN: usize = 1000;

/// A message in the answer.
#[derive(Debug, Serialize)]
pub(crate) struct PeekedMessage {
    /// The id of the message.
    id: String,
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

/// `GET …/groups/{group_id}/peek?stream=messages|deadletters&from=…&max=…`.
pub(crate) async fn messages(request: &ApiRequest<'_>) -> Result<Json<Vec<PeekedMessage>>, ApiError> {
    let (path, query) = (request.group().await?, request.query()?);
    page(&*request.app.broker, &path, &query).await.map(Json)
}

/// The messages that a query asks for.
///
/// # Errors
/// DMS.10540014 when a parameter is wrong, and the broker's error.
pub(crate) async fn page(broker: &dyn Broker, path: &GroupPath, query: &Query) -> Result<Vec<PeekedMessage>, ApiError> {
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
    let max = query.number("max", 100, &(1..=MAX_SHOWN), codes::URL_PARAMETER)?;
    let peeked = broker.peek(path, stream, from, max).await?;
    Ok(peeked.iter().filter_map(message_view).collect())
}

fn message_view(peeked: &Peeked) -> Option<PeekedMessage> {
    let (state, left) = match peeked.state {
        PeekState::Available => ("available", None),
        PeekState::Leased(left) => ("leased", Some(left)),
        PeekState::Delayed(left) => ("delayed", Some(left)),
    };
    Some(PeekedMessage {
        id: peeked.id.to_string(),
        sequence: peeked.sequence,
        state,
        left_ms: left.map(millis),
        failures: peeked.failures,
        entered_ms: peeked.entered_ms,
        dead_letter: peeked.dead_letter.clone(),
        message: serde_json::from_slice(&peeked.json).ok()?,
    })
}
