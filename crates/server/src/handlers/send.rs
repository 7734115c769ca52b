//! Sending messages (API reference 5.3.1).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;

use crate::{
    broker::MessageOrigin,
    handlers::{copies, extensions::Asked, request::ApiRequest, send_body::SendRequest},
    http::{error::ApiError, json::JsonText},
};
use dms_protocol::limits;

/// `POST /queues/{queue_id}/messages` (5.3.1).
pub(crate) async fn send(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (app, path) = (request.app, request.queue()?);
    let SendRequest { mut messages, return_id } =
        SendRequest::read(request.body, app.extensions, longest_delay(request))?;
    copies::check_ids(request, &path, &mut messages).await?;
    let count = messages.len();
    let asked: Option<Vec<_>> =
        return_id.then(|| messages.iter().map(|message| (message.delay, message.origin)).collect());
    let appended = app.broker.append(&path.project, &path.queue, messages).await?;
    let duplicates: Vec<usize> = appended.duplicates().collect();
    app.metrics.produced(count - duplicates.len(), duplicates.len());
    let text = match asked {
        Some(messages) => answer(count, &duplicates, appended.ids(&path.queue, messages.into_iter()).map(Some)),
        None => answer(count, &duplicates, std::iter::repeat_n(None, count)),
    };
    Ok((StatusCode::CREATED, JsonText(text)).into_response())
}

/// The longest delay of the messages: the documented one, unless the request asks for more.
fn longest_delay(request: &ApiRequest<'_>) -> Duration {
    match Asked::read(request.app, &request.head().headers).long_delays {
        true => limits::MAX_LONG_DELAY,
        false => limits::MAX_DELAY,
    }
}

/// The answer of 5.3.1. A request is stored as a whole or refused as a whole, so `state` is always 0. A message that was not stored
/// because of its deduplication key is marked.
fn answer(count: usize, duplicates: &[usize], ids: impl Iterator<Item = Option<MessageOrigin>>) -> Bytes {
    let mut text = String::with_capacity(20 + count * 90);
    text.push_str(r#"{"messages":["#);
    for (place, id) in ids.enumerate() {
        text.push_str(if place == 0 { "" } else { "," });
        text.push_str(r#"{"error":null,"error_code":null,"state":0"#);
        if let Some(id) = id {
            text.push_str(r#","id":""#);
            id.with_text(|id| text.push_str(id));
            text.push('"');
        }
        if duplicates.contains(&place) {
            text.push_str(r#","duplicate":true"#);
        }
        text.push('}');
    }
    text.push_str("]}");
    text.into()
}
