//! The messages of a request: one as JSON, a list of them, or CloudEvents.

use bytes::Bytes;
use http::HeaderMap;

use crate::{
    config::Span,
    message_json::line,
    sidecar::publisher::{
        events,
        list::{self, ParsedRequest, placed},
    },
};
use dms_protocol::message::{Body, Message};

/// The deduplication key of a request's message.
const KEY: &str = "dms-deduplication-key";
/// How long the key counts, such as `10m`.
const WINDOW: &str = "dms-deduplication-window";

/// Reads a request.
///
/// # Errors
/// When the request is not a message or a list. An error in one message of a list is in its place.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<ParsedRequest, String> {
    let (mut messages, single) = messages(headers, body)?;
    let (key, window) = (text(headers, KEY)?, text(headers, WINDOW)?);
    if key.is_none() && window.is_none() {
        return Ok((messages, single));
    }
    if !single {
        return Err(format!("the header {KEY} is for one message: write \"deduplication_key\" into each of a list"));
    }
    let window = window.map(str::parse::<Span>).transpose();
    let window = window.map_err(|error| format!("the header {WINDOW}: {error}"))?.map(Span::get);
    for message in messages.iter_mut().filter_map(|message| message.as_mut().ok()) {
        message.deduplication_key = key.map(str::to_owned).or(message.deduplication_key.take());
        message.deduplication_window = window.or(message.deduplication_window);
        line::check(message)?;
    }
    Ok((messages, single))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let value = headers.get(name).map(|value| std::str::from_utf8(value.as_bytes()));
    value.transpose().map_err(|_| format!("the header {name} is not UTF-8"))
}

fn messages(headers: &HeaderMap, body: &Bytes) -> Result<ParsedRequest, String> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn read_with(headers: &[(&'static str, &'static str)], body: &'static str) -> Result<ParsedRequest, String> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        read(&headers.collect(), &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn a_header_sets_the_deduplication_key_of_one_message() {
        let key = |headers: &[(&'static str, &'static str)], body| {
            let message = read_with(headers, body).unwrap().0.remove(0).unwrap();
            (message.deduplication_key, message.deduplication_window)
        };
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        let both = [("dms-deduplication-key", "order-7"), ("dms-deduplication-window", "10m")];
        assert_eq!(key(&both, r#"{"body":1}"#), (Some("order-7".to_owned()), minutes(10)));
        assert_eq!(key(&both[1..], r#"{"body":1,"deduplication_key":"k"}"#), (Some("k".to_owned()), minutes(10)));
        assert_eq!(key(&[], r#"{"body":1,"deduplication_key":"k"}"#), (Some("k".to_owned()), None));
        assert!(read_with(&both, r#"[{"body":1}]"#).unwrap_err().contains("into each of a list"));
        assert!(read_with(&both[1..], r#"{"body":1}"#).unwrap_err().contains("a deduplication key is needed"));
        let bad = [both[0], ("dms-deduplication-window", "10")];
        assert!(read_with(&bad, r#"{"body":1}"#).unwrap_err().contains("has no unit"));
    }
}
