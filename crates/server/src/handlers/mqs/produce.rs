//! Producing messages to a topic.

use std::{borrow::Cow, time::Duration};

use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::{
    broker::NewMessage,
    handlers::{attributes::NO_ATTRIBUTES, request::ApiRequest, send_body},
    http::{
        codes,
        error::ApiError,
        json::{self, JsonText},
    },
    shared_buffer::SharedBuffer,
};
use dms_protocol::{
    internal::json::{Fault, Scan, push_string, quoted},
    limits,
};

/// A message of the request: its content as raw JSON, and the caller's id.
#[derive(Debug, PartialEq)]
struct Entry<'a> {
    content: &'a [u8],
    id: Cow<'a, str>,
}

/// `POST /v1/topic/{topic}/messages`. A request is stored as a whole or refused as a whole, so every `state` is `success`.
pub(crate) async fn produce(request: &ApiRequest<'_>) -> Result<Response, ApiError> {
    let (app, path) = (request.app, request.queue()?);
    let entries = read(request.body)?;
    let bytes = entries.iter().map(|entry| send_body::size(entry.content, NO_ATTRIBUTES, &[])).sum();
    let mut buffer = SharedBuffer::new(entries.len(), bytes);
    let messages = entries.iter().map(|entry| message(entry, &mut buffer)).collect();
    app.broker.append(&path.project, &path.queue, messages).await?;
    app.metrics.produced(entries.len(), 0);
    Ok(JsonText(answer(&entries)).into_response())
}

/// Checks the body of a request.
///
/// # Errors
/// As the request itself.
pub(super) fn check_body(body: &[u8]) -> Result<(), ApiError> {
    read(body).map(drop)
}

fn read(body: &[u8]) -> Result<Vec<Entry<'_>>, ApiError> {
    let entries = json::read_messages(body, entries)?;
    check(&entries)?;
    Ok(entries)
}

fn entries<'a>(scan: &mut Scan<'a>) -> Result<Vec<Entry<'a>>, Fault> {
    scan.only("messages", |scan| scan.items(entry))
}

fn entry<'a>(scan: &mut Scan<'a>) -> Result<Entry<'a>, Fault> {
    let start = scan.start();
    let (mut content, mut id) = (None, None);
    scan.members(|name, scan| match &**name {
        b"content" => name.once(&mut content, scan.portable(limits::MAX_NESTING, 0)?),
        b"id" => name.once(&mut id, scan.string()?),
        _ => scan.value().map(drop),
    })?;
    Ok(Entry {
        content: content.ok_or_else(|| Fault::missing("content", start))?,
        id: id.ok_or_else(|| Fault::missing("id", start))?,
    })
}

fn check(entries: &[Entry<'_>]) -> Result<(), ApiError> {
    limits::message_count(entries.len())
        .map_err(|error| codes::REQUEST_FORMAT.at(error.of("The number of messages")))?;
    for (at, Entry { id, .. }) in entries.iter().enumerate() {
        if entries.iter().take(at).any(|before| before.id == *id) {
            let text = format!("messages[{at}].id is {}: every id may be used once in a request.", quoted(id));
            return Err(codes::REQUEST_FORMAT.at(text));
        }
    }
    let (size, most) = (entries.iter().map(|entry| entry.content.len()).sum::<usize>(), limits::MAX_MQS_BYTES);
    if size > most {
        return Err(
            codes::MESSAGE_SIZE.saying(format!("The message size is {size}, larger than the size limit {most}."))
        );
    }
    Ok(())
}

/// The message as the DMS API would have stored it, so that consumers of both dialects can read it.
fn message(entry: &Entry<'_>, buffer: &mut SharedBuffer) -> NewMessage {
    NewMessage {
        json: send_body::encode(buffer, entry.content, NO_ATTRIBUTES, &[]),
        body_bytes: entry.content.len(),
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    }
}

fn answer(entries: &[Entry<'_>]) -> Bytes {
    let mut text = Vec::with_capacity(2 + entries.iter().map(|entry| entry.id.len() + 28).sum::<usize>());
    text.push(b'[');
    for (at, Entry { id, .. }) in entries.iter().enumerate() {
        text.extend_from_slice(if at == 0 { br#"{"state":"success","id":"# } else { br#",{"state":"success","id":"# });
        push_string(&mut text, id);
        text.push(b'}');
    }
    text.push(b']');
    text.into()
}
