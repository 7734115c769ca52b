//! The messages of ROMA Connect MQS: produce, consume, acknowledge.
//!
//! Its documents leave parts of the answers open, so answers are read tolerantly. `docs/mqs.md` lists what is documented.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::{Dialect, Wording, received::Received};
use crate::{
    json::{Fault, Scan},
    limits::MAX_MESSAGES,
    message::{Attributes, Body, Message, ReceivedMessage},
};

pub(super) const WORDING: Wording =
    Wording { dialect: Dialect::Mqs, prefix: "/v1", quotas: "", return_id: "", delay_time: "" };

/// The body of a produce request. The id of a message is its number, which is unique in the request.
pub(crate) fn encode_produce(messages: &[Message]) -> Vec<u8> {
    let bodies: usize = messages.iter().map(|message| message.body.len() + 32).sum();
    let mut json = Vec::with_capacity(bodies + 32);
    json.extend_from_slice(b"{\"messages\":[");
    for (index, message) in messages.iter().enumerate() {
        json.extend_from_slice(if index > 0 { b",{\"content\":" } else { b"{\"content\":" });
        json.extend_from_slice(message.body.as_bytes());
        json.extend_from_slice(format!(",\"id\":\"{}\"}}", index + 1).as_bytes());
    }
    json.extend_from_slice(b"]}");
    json
}

/// The size of a message in a produce request, in bytes.
pub(super) fn encoded_len(message: &Message) -> usize {
    message.body.len() + r#"{"content":,"id":"10"}"#.len()
}

/// Reads the answer to a produce request of `count` messages: whether each one was stored, in the order of the request. A message
/// without a result counts as one that was not stored.
pub(crate) fn decode_produced(body: &[u8], count: usize) -> Result<Vec<bool>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        state: String,
        #[serde(default)]
        id: String,
    }
    let entries: Vec<Entry> = serde_json::from_slice(body)?;
    let stored = |number: usize| {
        let id = number.to_string();
        entries.iter().any(|entry| entry.id == id && entry.state.eq_ignore_ascii_case("success"))
    };
    Ok((1..=count).map(stored).collect())
}

/// Reads the answer to a consume call. A content that cannot be decoded does not cost the other messages.
///
/// # Errors
/// When not even the first message can be read.
pub(crate) fn decode_received(answer: &Bytes) -> Result<Received, String> {
    let mut messages = Vec::with_capacity(MAX_MESSAGES);
    let read = Scan::whole(answer, |scan| scan.items(|scan| element(scan, answer).map(|read| messages.push(read))));
    match read {
        Ok(_) => Ok(Received { messages, cut_off: None }),
        Err(fault) if messages.is_empty() => Err(fault.explain(answer)),
        Err(fault) => Ok(Received { messages, cut_off: Some(fault.explain(answer)) }),
    }
}

fn element(scan: &mut Scan<'_>, answer: &Bytes) -> Result<ReceivedMessage, Fault> {
    let start = scan.start();
    let (mut handler, mut message) = (None, None);
    scan.members(|name, scan| match &**name {
        b"handler" => name.once(&mut handler, scan.string()?),
        b"message" => {
            let start = scan.start();
            let content = scan.part(content)?;
            name.once(&mut message, (scan.since(start), content))
        }
        _ => scan.part(Scan::value).map(drop),
    })?;
    let handler = handler.ok_or_else(|| Fault::missing("handler", start))?;
    let message = message.unwrap_or_else(|| (scan.since(start), Err(Fault::missing("message", start))));
    let body = match message {
        (_, Ok(Content::Text(text))) => decode(&text),
        // JSON that is no string needs no decoding.
        (_, Ok(Content::Json(json))) => Body::trusted(answer.slice_ref(json)),
        (text, Err(fault)) => Body::undecodable(answer.slice_ref(text), &fault.explain(answer)),
    };
    Ok(ReceivedMessage::new(body, Attributes::new(), Vec::new(), handler.as_ref()))
}

/// A content as it arrived.
enum Content<'a> {
    Text(Cow<'a, str>),
    Json(&'a [u8]),
}

fn content<'a>(scan: &mut Scan<'a>) -> Result<Content<'a>, Fault> {
    let start = scan.start();
    let mut content = None;
    scan.members(|name, scan| match &**name {
        b"content" => {
            let read = match scan.first() {
                Some(b'"') => Content::Text(scan.string()?),
                _ => Content::Json(scan.value()?),
            };
            name.once(&mut content, read)
        }
        _ => scan.value().map(drop),
    })?;
    content.ok_or_else(|| Fault::missing("content", start))
}

/// The body in a content. The documents show Base64 of JSON text. Base64 of other text, JSON text and other text are recognized too,
/// in this order: text that is not JSON becomes a JSON string.
fn decode(content: &str) -> Body {
    let decoded = STANDARD.decode(content.trim()).ok();
    let decoded_text = decoded.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text = match decoded_text {
        Some(text) if !text.is_empty() => text,
        _ => content,
    };
    let quoted =
        || Body::json(text).unwrap_or_else(|error| Body::undecodable(Bytes::from(text.to_owned()), &error.to_string()));
    Body::raw(Bytes::from(text.to_owned())).unwrap_or_else(|_| quoted())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_produce_request_is_as_documented() {
        let messages = [Message::text("hello roma-1"), Message::json(&serde_json::json!({"n": 2})).unwrap()];
        let json = String::from_utf8(encode_produce(&messages)).unwrap();
        assert_eq!(json, r#"{"messages":[{"content":"hello roma-1","id":"1"},{"content":{"n":2},"id":"2"}]}"#);
        assert!(messages.iter().map(encoded_len).sum::<usize>() + r#"{"messages":[]}"#.len() >= json.len());
    }

    #[test]
    fn results_belong_to_messages_by_their_ids() {
        let read = |text: &str, count| decode_produced(text.as_bytes(), count).unwrap();
        assert_eq!(read(r#"[{"state":"success","id":"1"},{"state":"success","id":"2"}]"#, 2), [true, true]);
        assert_eq!(
            read(r#"[{"state":"success","id":"2"},{"state":"fail","id":"1","new":1}]"#, 3),
            [false, true, false]
        );
        assert!(decode_produced(b"{}", 1).is_err());
    }

    fn received(text: &str) -> Received {
        decode_received(&Bytes::from(text.to_owned())).unwrap()
    }

    /// The document of page 3013.
    #[test]
    fn the_documented_answer_is_read() {
        let read = received(r#"[{"handler":"NCMxMDAjMTgjMA==","message":{"content":"ImhlbGxvIGh1YXdlaWNsb3VkLTIi"}}]"#);
        let [message] = &read.messages[..] else { panic!("{read:?}") };
        assert_eq!((message.handle.as_str(), message.body.as_str()), ("NCMxMDAjMTgjMA==", r#""hello huaweicloud-2""#));
        assert!(message.attributes.is_empty() && message.tags.is_empty() && message.id.is_none());
        assert_eq!(received("[]").messages, []);
    }

    #[test]
    fn contents_are_decoded_leniently() {
        let base64 = |text: &str| STANDARD.encode(text);
        for (content, body) in [
            (base64(r#"{ "a": [1e3] }"#), r#"{ "a": [1e3] }"#.to_owned()),
            (base64("null"), "null".to_owned()),
            (base64("plain text"), r#""plain text""#.to_owned()),
            (base64("队列"), r#""队列""#.to_owned()),
            (r#"{\"a\":1}"#.to_owned(), r#"{"a":1}"#.to_owned()),
            ("plain text".to_owned(), r#""plain text""#.to_owned()),
            ("1234".to_owned(), "1234".to_owned()),
            ("true".to_owned(), "true".to_owned()),
            ("abcd".to_owned(), r#""abcd""#.to_owned()),
            (String::new(), r#""""#.to_owned()),
        ] {
            let read = received(&format!(r#"[{{"message":{{"content":"{content}"}},"handler":"h"}}]"#));
            assert_eq!(read.messages[0].body.as_str(), body, "{content}");
            assert_eq!(read.messages[0].undecodable(), None);
        }
        let object = received(r#"[{"message":{"content":{"a": 1}},"handler":"h"}]"#);
        assert_eq!(object.messages[0].body.as_str(), r#"{"a": 1}"#);
    }

    #[test]
    fn a_message_that_cannot_be_read_harms_no_other() {
        for bad in [r#"{"contents":"x"}"#, r#"{"content":"\ud83d"}"#, "7", r#"{"content":"a","content":"b"}"#] {
            let read = received(&format!(
                r#"[{{"message":{{"content":"MQ=="}},"handler":"a"}},{{"message":{bad},"handler":"b"}},
                    {{"message":{{"content":"Mw=="}},"handler":"c"}}]"#
            ));
            assert_eq!(read.cut_off, None, "{bad}");
            let faults: Vec<bool> = read.messages.iter().map(|message| message.undecodable().is_some()).collect();
            assert_eq!(faults, [false, true, false], "{bad}");
        }
        let cut = received(r#"[{"message":{"content":"MQ=="},"handler":"a"},{"message":{"content":"MQ=="}}]"#);
        assert!(cut.messages.len() == 1 && cut.cut_off.is_some_and(|why| why.contains("handler")));
        assert!(decode_received(&Bytes::from_static(b"<html>")).is_err());
    }
}
