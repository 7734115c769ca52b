//! CloudEvents as messages (CloudEvents 1.0.2, HTTP protocol binding 3.1-3.3): data is the body, attributes of the event
//! are attributes of the message, called `ce-…`.

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::{Map, Value};

use super::Read;
use crate::{
    message::{Body, Message},
    sidecar::line,
};

/// The events of a request; `None` when it is none.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Option<Result<Read, String>> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/cloudevents+json" => Some(structured(body)),
        "application/cloudevents-batch+json" => Some(batch(body)),
        _ if headers.contains_key("ce-specversion") => Some(Ok((vec![binary(headers, &media_type, body)], true))),
        _ => None,
    }
}

fn structured(body: &Bytes) -> Result<Read, String> {
    let event = serde_json::from_slice(body).map_err(|error| format!("the event is not JSON: {error}"))?;
    Ok((vec![message_of(event)], true))
}

fn batch(body: &Bytes) -> Result<Read, String> {
    let events: Vec<Map<String, Value>> =
        serde_json::from_slice(body).map_err(|error| format!("the batch is not a list of events: {error}"))?;
    match events.is_empty() {
        true => Err("the batch is empty: at least one event is needed".to_owned()),
        false => Ok((events.into_iter().map(message_of).collect(), false)),
    }
}

fn message_of(mut event: Map<String, Value>) -> Result<Message, String> {
    let data = match (event.remove("data"), event.remove("data_base64")) {
        (Some(data), _) => data,
        (None, Some(_)) => return Err("`data_base64` is not JSON: send the event's data as JSON".to_owned()),
        (None, None) => Value::Null,
    };
    let body = Body::json(&data).map_err(|error| error.to_string())?;
    let attributes = event.into_iter().map(|(name, value)| (format!("ce-{name}"), value)).collect();
    checked(Message { attributes, ..Message::new(body) })
}

fn binary(headers: &HeaderMap, media_type: &str, body: &Bytes) -> Result<Message, String> {
    let json = media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json");
    let body = match (json, std::str::from_utf8(body)) {
        (_, Ok("")) => Body::json(&Value::Null),
        (true, Ok(_)) => Body::raw(body.clone()),
        (false, Ok(text)) if media_type.starts_with("text/") => Body::json(text),
        _ => return Err(format!("data of type {media_type} cannot be a message: JSON and text can")),
    };
    let body = body.map_err(|error| format!("the event's data is not JSON: {error}"))?;
    let events = headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-"));
    let attributes =
        events.filter_map(|(name, value)| Some((name.to_string(), Value::from(decode(value.as_bytes())?))));
    checked(Message { attributes: attributes.collect(), ..Message::new(body) })
}

fn checked(message: Message) -> Result<Message, String> {
    for required in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        if !message.attributes.contains_key(required) {
            return Err(format!("the event has no `{}`, which every CloudEvent has", &required[3..]));
        }
    }
    line::check(&message).map(|()| message)
}

/// Undoes the percent-encoding of a header's value (binding 3.1.3.2). What is no encoding stays as it is.
fn decode(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let encoded = match rest {
            [b'%', high, low, ..] => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match encoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    fn one(headers: &HeaderMap, body: &'static str) -> Result<Message, String> {
        let (mut messages, single) = read(headers, &Bytes::from_static(body.as_bytes())).unwrap().unwrap();
        assert!(single);
        messages.remove(0)
    }

    #[test]
    fn an_event_in_binary_mode_keeps_its_attributes() {
        let ce = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/a%20b"),
            ("ce-type", "order.created"),
            ("content-type", "application/json; charset=utf-8"),
        ];
        let message = one(&headers(&ce), r#"{"n": 1}"#).unwrap();
        assert_eq!(message.body.as_str(), r#"{"n": 1}"#);
        assert_eq!(message.attributes["ce-source"], "/a b");
        let reason = one(&headers(&ce[..3]), "1").unwrap_err();
        assert_eq!(reason, "the event has no `type`, which every CloudEvent has");
    }

    #[test]
    fn an_event_in_structured_mode_is_the_same_message() {
        let headers = headers(&[("content-type", "application/cloudevents+json")]);
        let body = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","tenant":7,"data":{"n":1}}"#;
        let message = one(&headers, body).unwrap();
        assert_eq!(message.body.as_str(), r#"{"n":1}"#);
        assert_eq!(message.attributes["ce-tenant"], 7);
    }

    #[test]
    fn any_other_request_is_no_event() {
        assert!(read(&headers(&[("content-type", "application/json")]), &Bytes::new()).is_none());
    }
}
