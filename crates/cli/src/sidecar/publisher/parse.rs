//! The messages of a request: one as JSON, a list of them, or CloudEvents.

use bytes::Bytes;
use http::HeaderMap;

use crate::{
    message_json::line,
    sidecar::publisher::{
        events,
        list::{self, ParsedRequest, placed},
    },
};
use dms_protocol::message::{Body, Message};

/// Reads a request.
///
/// # Errors
/// When the request is not a message or a list. An error in one message of a list is in its place.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<ParsedRequest, String> {
    if let Some(read) = events::read(headers, body) {
        return read;
    }
    let common = Message::new(Body::trusted("null".into()));
    let parse = |json: &[u8]| line::parse(json, &common).and_then(|message| line::check(&message).map(|()| message));
    if body.trim_ascii_start().starts_with(b"[") {
        let items = list::items(body, "list")?;
        return Ok((placed(items.into_iter().map(|item| parse(item.as_bytes()))), false));
    }
    Ok((vec![parse(body)], true))
}
