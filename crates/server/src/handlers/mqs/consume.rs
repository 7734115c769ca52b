//! Consuming messages of a topic.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    broker::{LeaseRequest, LeasedMessage, Stream},
    handlers::{consume::take, request::ApiRequest},
    http::{
        codes::{self, Code},
        error::ApiError,
        json::JsonText,
        query::Query,
    },
};
use dms_protocol::{
    internal::json::{Scan, push_string},
    limits,
    queue::TagFilter,
};

/// The default of `max_bytes`.
const DEFAULT_BYTES: usize = limits::MAX_BYTES;
/// The default of `ack_wait`, in seconds.
const DEFAULT_ACK_WAIT: u64 = 15;
/// The default of `time_wait`, in seconds.
const DEFAULT_TIME_WAIT: u64 = 3;

// The vendor publishes no codes of this API, so these are the codes of the DMS API for the same mistakes.
const ACK_WAIT: Code = Code { text: "The value of ack_wait must be within the range of 1-300.", ..codes::ACK_WAIT };
const TIME_WAIT: Code =
    Code { text: "The value of time_wait is not within the value range of 1-30.", ..codes::TIME_WAIT };

/// `GET /v1/topic/{topic}/group/{group}/messages`.
pub(crate) async fn messages(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (path, query) = (request.group().await?, request.query()?);
    take(request, &path, Stream::Messages, lease_request(&query)?, answer).await
}

/// Checks the query of a request.
///
/// # Errors
/// As the request itself.
pub(super) fn check_query(request: &ApiRequest<'_>) -> Result<(), ApiError> {
    lease_request(&request.query()?).map(drop)
}

fn lease_request(query: &Query) -> Result<LeaseRequest, ApiError> {
    let seconds = |name, default, range, code| query.number(name, default, range, code).map(Duration::from_secs);
    let most = limits::MAX_MESSAGES;
    Ok(LeaseRequest {
        max_messages: query.number("max_msgs", most, &(1..=most), codes::MAX_MSGS)?,
        max_bytes: query.number("max_bytes", DEFAULT_BYTES, &(1..=limits::MAX_MQS_BYTES), codes::PARAMETER)?,
        wait: seconds("time_wait", DEFAULT_TIME_WAIT, &limits::MQS_POLL_WAIT_SECS, TIME_WAIT)?,
        ack_wait: seconds("ack_wait", DEFAULT_ACK_WAIT, &limits::MQS_ACK_WAIT_SECS, ACK_WAIT)?,
        filter: TagFilter::default(),
    })
}

/// A bare array of receipts and contents. The content is the JSON text of the body in Base64.
fn answer(leased: &[LeasedMessage]) -> Response {
    let size = |message: &LeasedMessage| message.json.len().div_ceil(3) * 4 + message.receipt.as_bytes().len() + 48;
    let mut text = Vec::with_capacity(leased.iter().map(size).sum::<usize>() + 2);
    let mut content = String::new();
    text.push(b'[');
    for (at, message) in leased.iter().enumerate() {
        content.clear();
        match Scan::whole(&message.json, |scan| scan.only("body", Scan::value)) {
            Ok(body) => STANDARD.encode_string(body, &mut content),
            // Every stored message has a body.
            Err(_) => return codes::INTERNAL.plain().into_response(),
        }
        text.extend_from_slice(if at == 0 { br#"{"handler":"# } else { br#",{"handler":"# });
        push_string(&mut text, &message.receipt);
        text.extend_from_slice(br#","message":{"content":""#);
        text.extend_from_slice(content.as_bytes());
        text.extend_from_slice(br#""}}"#);
    }
    text.push(b']');
    JsonText(text.into()).into_response()
}
