//! Sending messages (API reference 5.3.1).

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::StatusCode;

use crate::{
    handlers::{request::ApiRequest, send_body::SendRequest},
    http::{codes, error::ApiError, json::JsonText},
};

/// `POST /queues/{queue_id}/messages` (5.3.1).
pub(crate) async fn send(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (app, path) = (request.app, request.queue()?);
    let SendRequest { messages, return_id } = SendRequest::read(request.body)?;
    let ids = return_id.then(Ids::draw).transpose()?;
    let count = messages.len();
    app.broker.append(&path.project, &path.queue, messages).await?;
    app.metrics.produced(count);
    Ok((StatusCode::CREATED, JsonText(answer(count, ids.as_ref()))).into_response())
}

/// The answer of 5.3.1. A request is stored as a whole or refused as a whole, so `state` is always 0.
fn answer(count: usize, ids: Option<&Ids>) -> Bytes {
    let mut text = String::with_capacity(20 + count * 90);
    text.push_str(r#"{"messages":["#);
    for place in (0..=u16::MAX).take(count) {
        text.push_str(if place == 0 { "" } else { "," });
        text.push_str(r#"{"error":null,"error_code":null,"state":0"#);
        if let Some(ids) = ids {
            text.push_str(r#","id":""#);
            ids.write(place, &mut text);
            text.push('"');
        }
        text.push('}');
    }
    text.push_str("]}");
    text.into()
}

/// The ids of the messages of a request: a random number for the request and the position in it, so that an id reveals nothing.
struct Ids([u8; 16]);

impl Ids {
    fn draw() -> Result<Self, ApiError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system provides no random numbers; a send was refused");
            codes::INTERNAL.plain()
        })?;
        Ok(Self(random))
    }

    fn write(&self, place: u16, text: &mut String) {
        let mut id = [0; 18];
        id[..16].copy_from_slice(&self.0);
        id[16..].copy_from_slice(&place.to_be_bytes());
        URL_SAFE_NO_PAD.encode_string(id, text);
    }
}
