//! Sending messages (API reference 5.3.1).

use std::{borrow::Cow, collections::HashMap, time::Duration};

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{
    app::App,
    broker::NewMessage,
    codes,
    error::ApiError,
    json::{self, JsonText},
    paths::QueuePath,
};
use crate::{
    json::{Scan, once},
    limits,
};

/// The body of 5.3.1; V1.0 spells two of the fields in another way, and both spellings are read on both versions.
#[derive(Debug, PartialEq, Deserialize)]
struct SendRequest<'a> {
    #[serde(borrow)]
    messages: Vec<SendEntry<'a>>,
    #[serde(default, alias = "returnId", deserialize_with = "lenient_bool")]
    return_id: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
struct SendEntry<'a> {
    #[serde(borrow, deserialize_with = "json::text")]
    body: &'a [u8],
    #[serde(default, borrow, deserialize_with = "json::text_or_null")]
    attributes: Option<&'a [u8]>,
    tags: Option<Vec<String>>,
    #[serde(alias = "delayTime")]
    delay_time: Option<f64>,
}

/// `POST /queues/{queue_id}/messages` (5.3.1).
pub(super) async fn send(app: &App, path: &QueuePath, body: &[u8]) -> Result<Response, ApiError> {
    let request = json::read_messages(body, scan)?;
    let ids = request.return_id.then(Ids::draw).transpose()?;
    let messages = checked(request)?;
    let count = messages.len();
    app.broker.append(&path.project, &path.queue, messages).await?;
    app.metrics.produced(count);
    Ok((StatusCode::CREATED, JsonText(answer(count, ids.as_ref()))).into_response())
}

/// The same as the parser makes of a body.
fn scan<'a>(scan: &mut Scan<'a>) -> Option<SendRequest<'a>> {
    let (mut messages, mut return_id) = (None, None);
    scan.members(|name, scan| match name {
        b"messages" => once(&mut messages, scan.items(scan_entry)?),
        b"return_id" | b"returnId" => match scan.value()? {
            b"true" => once(&mut return_id, true),
            b"false" => once(&mut return_id, false),
            _ => None,
        },
        _ => None,
    })?;
    Some(SendRequest { messages: messages?, return_id: return_id.unwrap_or(false) })
}

fn scan_entry<'a>(scan: &mut Scan<'a>) -> Option<SendEntry<'a>> {
    let (mut body, mut attributes, mut tags, mut delay_time) = (None, None, None, None);
    scan.members(|name, scan| {
        let value = scan.value()?;
        match name {
            b"body" => once(&mut body, value),
            b"attributes" => once(&mut attributes, value),
            b"tags" => once(&mut tags, serde_json::from_slice(value).ok()?),
            b"delay_time" | b"delayTime" => once(&mut delay_time, serde_json::from_slice(value).ok()?),
            _ => None,
        }
    })?;
    let attributes = attributes.filter(|text| *text != b"null");
    Some(SendEntry { body: body?, attributes, tags, delay_time })
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

/// The ids of a request's messages. Nothing can be read from one: it is random for the request, then the place in it.
struct Ids([u8; 16]);

impl Ids {
    fn draw() -> Result<Self, ApiError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system gives no random numbers");
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

fn checked(request: SendRequest<'_>) -> Result<Vec<NewMessage>, ApiError> {
    limits::message_count(request.messages.len()).map_err(|error| codes::REQUEST_FORMAT.because(error))?;
    let size: usize = request.messages.iter().map(|entry| entry.body.len()).sum();
    if size > limits::MAX_BYTES {
        let most = limits::MAX_BYTES;
        return Err(
            codes::MESSAGE_SIZE.saying(format!("The message size is {size}, larger than the size limit {most}."))
        );
    }
    request.messages.into_iter().map(message).collect()
}

fn message(entry: SendEntry<'_>) -> Result<NewMessage, ApiError> {
    let tags = entry.tags.unwrap_or_default();
    limits::labels(&tags).map_err(|error| codes::LABEL.because(error))?;
    let attributes = attributes(entry.attributes)?;
    for (what, text) in [("body", entry.body), ("attributes", &*attributes)] {
        if json::too_deep(text) {
            let most = json::MAX_DEPTH;
            return Err(codes::MESSAGE_JSON.because(format!("{what} nests deeper than the {most} levels allowed.")));
        }
    }
    Ok(NewMessage {
        json: encode(entry.body, &attributes, &tags),
        body_bytes: entry.body.len(),
        tags,
        delay: delay(entry.delay_time)?,
    })
}

/// The `message` object of a consume answer, spliced from the texts as they came.
fn encode(body: &[u8], attributes: &[u8], tags: &[String]) -> Bytes {
    let mut text = BytesMut::with_capacity(body.len() + attributes.len() + 40 + tags.len() * 67);
    text.put_slice(br#"{"body":"#);
    text.put_slice(body);
    text.put_slice(br#","attributes":"#);
    text.put_slice(attributes);
    if !tags.is_empty() {
        text.put_slice(br#","tags":["#);
        for (at, tag) in tags.iter().enumerate() {
            // Labels are words: nothing in them needs escaping.
            text.put_slice(if at == 0 { b"\"" } else { b",\"" });
            text.put_slice(tag.as_bytes());
            text.put_slice(b"\"");
        }
        text.put_slice(b"]");
    }
    text.put_slice(b"}");
    text.freeze()
}

/// The attributes as JSON text: as they came, unless a name stands there twice; then the last one wins (5.3.1).
fn attributes(text: Option<&[u8]>) -> Result<Cow<'_, [u8]>, ApiError> {
    let text = text.unwrap_or(b"{}");
    if text == b"{}" {
        return Ok(Cow::Borrowed(text));
    }
    let misshapen = |_| codes::REQUEST_FORMAT.because("attributes is not a JSON object.");
    let pairs: Pairs<'_> = serde_json::from_slice(text).map_err(misshapen)?;
    if pairs.0.len() < 2 {
        return Ok(Cow::Borrowed(text));
    }
    let mut last = HashMap::with_capacity(pairs.0.len());
    for (at, (name, _)) in pairs.0.iter().enumerate() {
        last.insert(name, at);
    }
    if last.len() == pairs.0.len() {
        return Ok(Cow::Borrowed(text));
    }
    let kept = pairs.0.iter().enumerate().filter(|(at, (name, _))| last.get(name) == Some(at));
    let texts: Vec<String> =
        kept.map(|(_, (name, value))| format!("{}:{value}", serde_json::Value::from(&**name))).collect();
    Ok(Cow::Owned(format!("{{{}}}", texts.join(",")).into_bytes()))
}

/// The members of a JSON object in their order, equal names and all.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> de::Visitor<'de> for Collect {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<String, &'de RawValue>()? {
                    pairs.push((Cow::Owned(pair.0), pair.1));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// `delay_time`: milliseconds, what is behind the point cut off (5.3.1).
fn delay(millis: Option<f64>) -> Result<Duration, ApiError> {
    let Some(millis) = millis else { return Ok(Duration::ZERO) };
    let refused =
        || codes::REQUEST_FORMAT.because(format!("delay_time is {millis}: 0 to 604800000 ms (7 days) are allowed."));
    let delay = Duration::try_from_secs_f64((millis.trunc() + 0.0) / 1000.0).map_err(|_| refused())?;
    limits::delay(delay).map_err(|_| refused())?;
    Ok(delay)
}

/// A boolean, or one of the strings that the V1.0 example sends in its place (`"returnId": "true"`).
fn lenient_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Lenient {
        Bool(bool),
        Text(String),
        Null(()),
    }
    match Lenient::deserialize(deserializer)? {
        Lenient::Bool(value) => Ok(value),
        Lenient::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Lenient::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Lenient::Null(()) => Ok(false),
        Lenient::Text(text) => Err(de::Error::invalid_value(de::Unexpected::Str(&text), &"true or false")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::json::assert_scanned_as_parsed;

    /// The usual requests are read without the parser, the others by it, and both read the same.
    #[test]
    fn requests_are_scanned_as_they_are_parsed() {
        let usual = [
            r#"{"messages":[]}"#,
            r#"{"messages":[{"body":{"a":[1,"\""]}},{"body":"队","attributes":{"a":1,"a":2},"tags":["t"],"delay_time":1.5}]}"#,
            r#" { "returnId" : true, "messages" : [ { "attributes" : null , "body":1 } ] } "#,
            r#"{"messages":[{"body":1,"delayTime":60000,"tags":[]}],"return_id":false}"#,
        ];
        let unusual = [
            r#"{"messages":[{"body":1,"attributes":[]}],"returnId":"true"}"#,
            r#"{"messages":[{"body":1,"new":2}]}"#,
            r#"{"messages":[{"body":1,"tags":null,"delay_time":null}]}"#,
            r#"{"messages":[{"body":1,"body":2}]}"#,
            r#"{"messages":[{"attributes":{}}]}"#,
            r#"{"messages":[{"body":1}]} 1"#,
            r#"{"message":[]}"#,
        ];
        let parse = |text| json::parse_messages(text).unwrap();
        assert_scanned_as_parsed(&usual, &unusual, |text| Scan::whole(text, scan), parse);
        assert_eq!(Scan::whole(b"{\"messages\":[{\"body\":\"\xff\"}]}", scan), None);
    }

    proptest! {
        #[test]
        fn what_is_scanned_is_what_is_parsed(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "[", "]", ":", ",", "\"messages\"", "\"body\"", "\"tags\"", "\"attributes\"", "\"return_id\"",
                    "\"delay_time\"", "{\"messages\":[{\"body\":", "}]}", "1", "true", "null", "\"x\"", "\"\\u00e4\"", "{}", "[]", " ",
                ]),
                0..12,
            ),
        ) {
            let text = parts.concat();
            if let Some(scanned) = Scan::whole(text.as_bytes(), scan) {
                prop_assert_eq!(scanned, json::parse_messages(text.as_bytes()).unwrap());
            }
        }
    }
}
