//! CloudEvents as messages (CloudEvents 1.0.2, HTTP protocol binding 3.1-3.3): data is the body, attributes of the event
//! are attributes of the message, called `ce-…`.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::{Value, value::RawValue};

use crate::{
    message_json::{line, object::Object},
    sidecar::{
        deliver::http::cloudevents::NO_DATA,
        publisher::list::{self, ParsedRequest, placed},
    },
};
use dms_protocol::message::{Attributes, Body, Message};

/// The events of a request; `None` when it is none.
pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Option<Result<ParsedRequest, String>> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type(content_type);
    match media_type.as_str() {
        "application/cloudevents+json" => Some(structured(body)),
        "application/cloudevents-batch+json" => Some(batch(body)),
        _ if headers.contains_key("ce-specversion") => Some(Ok((vec![binary(headers, &media_type, body)], true))),
        _ => None,
    }
}

fn structured(body: &Bytes) -> Result<ParsedRequest, String> {
    let event: &RawValue = serde_json::from_slice(body).map_err(|error| format!("the event is not JSON: {error}"))?;
    Ok((vec![message_of(event.get())], true))
}

fn batch(body: &Bytes) -> Result<ParsedRequest, String> {
    let events = list::items(body, "batch")?;
    Ok((placed(events.into_iter().map(message_of)), false))
}

/// The message of an event in JSON. Its data is the body, and its attributes are the message's, in their own text.
fn message_of(event: &str) -> Result<Message, String> {
    let event = Attributes::raw(event.to_owned());
    let mut event = event.map_err(|error| format!("the event is not a JSON object: {error}"))?;
    let media_type = event.get_str("datacontenttype").map(|text| media_type(&text)).unwrap_or_default();
    let body = match (event.remove("data"), event.remove("data_base64")) {
        (Some(data), _) => Some(Body::raw(data.get().to_owned()).map_err(|error| error.to_string())?),
        (None, Some(encoded)) => {
            let text: String =
                serde_json::from_str(encoded.get()).map_err(|_| "`data_base64` is not a text".to_owned())?;
            let data = STANDARD.decode(&text).map_err(|error| format!("`data_base64` is not Base64: {error}"))?;
            body_of(&media_type, &data.into())?
        }
        (None, None) => None,
    };
    let mut attributes = Object::new();
    // An attribute that is null is not there (JSON event format, 2.2).
    for (name, value) in event.iter().filter(|(_, value)| value.get() != "null") {
        attributes = attributes.raw(&format!("ce-{name}"), value.get());
    }
    let attributes = Attributes::raw(attributes.finish()).map_err(|error| error.to_string())?;
    checked(body, attributes)
}

fn binary(headers: &HeaderMap, media_type: &str, body: &Bytes) -> Result<Message, String> {
    let events = headers.iter().filter(|(name, _)| name.as_str().starts_with("ce-"));
    let attributes =
        events.filter_map(|(name, value)| Some((name.to_string(), Value::from(decode(value.as_bytes())?))));
    let mut attributes: Attributes = attributes.collect();
    if media_type.starts_with("text/") {
        // Its type is all that tells it from JSON on the other side.
        attributes.insert("ce-datacontenttype", media_type);
    }
    checked(body_of(media_type, body)?, attributes)
}

/// The essence of a content type, in small letters.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Data of this type as the body of a message: JSON as it is, text as a JSON string. `None` when there is no data: nothing at all is
/// a text, but no JSON.
fn body_of(media_type: &str, data: &Bytes) -> Result<Option<Body>, String> {
    let json = media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json");
    let body = match (json, std::str::from_utf8(data)) {
        (false, Ok(text)) if media_type.starts_with("text/") => Body::json(text),
        (_, Ok("")) => return Ok(None),
        (true, Ok(_)) => Body::raw(data.clone()),
        _ => return Err(format!("data of type {media_type:?} cannot be a message: JSON and text can")),
    };
    body.map(Some).map_err(|error| format!("the event's data is not JSON: {error}"))
}

/// A message of an event that is one (CloudEvents 1.0.2, 3.1: required attributes). Without data its body is `null`, and an attribute
/// says so.
fn checked(body: Option<Body>, mut attributes: Attributes) -> Result<Message, String> {
    for required in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        if attributes.get_str(required).is_none_or(|text| text.is_empty()) {
            return Err(format!("the event has no `{}`, which every CloudEvent has", &required[3..]));
        }
    }
    let version = attributes.get("ce-specversion").map_or("null", RawValue::get);
    if version != "\"1.0\"" {
        return Err(format!("the event's `specversion` is {version}: \"1.0\" is understood"));
    }
    let body = body.unwrap_or_else(|| {
        attributes.insert(NO_DATA, true);
        Body::trusted("null".into())
    });
    let message = Message { attributes, ..Message::new(body) };
    line::check(&message).map(|()| message)
}

/// Undoes the percent-encoding of a header's value (binding 3.1.3.2). Text that is no encoding stays as it is.
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
        assert_eq!(message.attributes.get_str("ce-source").as_deref(), Some("/a b"));
        let reason = one(&headers(&ce[..3]), "1").unwrap_err();
        assert_eq!(reason, "the event has no `type`, which every CloudEvent has");
    }

    #[test]
    fn an_event_in_structured_mode_is_the_same_message() {
        let headers = headers(&[("content-type", "application/cloudevents+json")]);
        let body = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","tenant":7,"data":{"n":1}}"#;
        let message = one(&headers, body).unwrap();
        assert_eq!(message.body.as_str(), r#"{"n":1}"#);
        assert_eq!(message.attributes.get_u64("ce-tenant"), Some(7));
        let encoded =
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":null,"data_base64":"eyJuIjoxfQ=="}"#;
        let encoded = one(&headers, encoded).unwrap();
        assert_eq!((encoded.body.as_str(), encoded.attributes.contains("ce-time")), (r#"{"n":1}"#, false));
    }

    #[test]
    fn what_is_no_event_of_this_version_is_refused() {
        let headers = headers(&[("content-type", "application/cloudevents+json")]);
        let reason = |event: &'static str| one(&headers, event).unwrap_err();
        let old = reason(r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#);
        assert_eq!(old, "the event's `specversion` is \"0.3\": \"1.0\" is understood");
        let empty = reason(r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#);
        assert_eq!(empty, "the event has no `id`, which every CloudEvent has");
        let binary = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","datacontenttype":"image/png","data_base64":"AA=="}"#;
        assert_eq!(reason(binary), "data of type \"image/png\" cannot be a message: JSON and text can");
    }

    #[test]
    fn an_event_without_data_is_not_one_whose_data_is_null() {
        let headers = headers(&[("content-type", "application/cloudevents+json")]);
        let event = |data: &'static str| one(&headers, data).unwrap();
        let null = event(r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":null}"#);
        let none = event(r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#);
        assert_eq!((null.body.as_str(), null.attributes.contains(NO_DATA)), ("null", false));
        assert_eq!((none.body.as_str(), none.attributes.contains(NO_DATA)), ("null", true));
    }

    #[test]
    fn events_keep_the_text_of_their_data_and_attributes() {
        let headers = headers(&[("content-type", "application/cloudevents+json")]);
        let event = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","n":1e3,"data":{"price":1e400,"a":1, "a":12345678901234567890123}}"#;
        let message = one(&headers, event).unwrap();
        assert_eq!(message.body.as_str(), r#"{"price":1e400,"a":1, "a":12345678901234567890123}"#);
        assert_eq!(message.attributes.get("ce-n").map(RawValue::get), Some("1e3"));
    }

    #[test]
    fn text_stays_text_and_keeps_its_type() {
        let ce = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/a"),
            ("ce-type", "t"),
            ("content-type", "text/plain; charset=utf-8"),
        ];
        let message = one(&headers(&ce), "it is \"so\"").unwrap();
        assert_eq!(message.body.as_str(), r#""it is \"so\"""#);
        assert_eq!(message.attributes.get_str("ce-datacontenttype").as_deref(), Some("text/plain"));
    }

    #[test]
    fn any_other_request_is_no_event() {
        assert!(read(&headers(&[("content-type", "application/json")]), &Bytes::new()).is_none());
    }
}
