//! The messages of ROMA Connect MQS: produce, consume, acknowledge.
//!
//! Its documents leave parts of the answers open, so answers are read tolerantly. `docs/mqs.md` lists what is documented.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::{Dialect, Wording, received::Received};
use crate::{
    json::{Fault, Scan, push_string},
    limits::MAX_MESSAGES,
    message::{Attributes, Body, Message, ReceivedMessage},
};

pub(super) const WORDING: Wording =
    Wording { dialect: Dialect::Mqs, prefix: "/v1", quotas: "", return_id: "", delay_time: "" };

/// How the contents of messages are written and read over ROMA Connect MQS, whose documents are not clear about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Content {
    /// How contents are sent; [`ContentEncoding::Json`] by default.
    pub send: ContentEncoding,
    /// How contents are read; [`ContentDecoding::Auto`] by default.
    pub receive: ContentDecoding,
}

impl Content {
    /// The defaults, which follow the documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// How contents are sent; [`ContentEncoding::Json`] by default.
    pub fn send(mut self, encoding: ContentEncoding) -> Self {
        self.send = encoding;
        self
    }

    /// How contents are read; [`ContentDecoding::Auto`] by default.
    pub fn receive(mut self, decoding: ContentDecoding) -> Self {
        self.receive = decoding;
        self
    }
}

/// How a body is sent as the content of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentEncoding {
    /// The body itself, any JSON value, as documented. The default.
    #[default]
    Json,
    /// A string: a body that is a string itself, and otherwise its JSON text.
    Text,
    /// A string: Base64 of the JSON text.
    Base64,
}

/// How the content of a message is read as a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContentDecoding {
    /// Base64 of JSON text as documented, or Base64 of other text, or JSON text, or else text, whichever it is first. Text that
    /// happens to be Base64 of other text is decoded. The default.
    #[default]
    Auto,
    /// Base64 of JSON text, or of other text, which becomes a JSON string. Any other content cannot be decoded.
    Base64,
    /// JSON text. Any other content cannot be decoded.
    Json,
    /// Text, which becomes a JSON string.
    Text,
}

/// The body of a produce request. The id of a message is its number, which is unique in the request.
pub(crate) fn encode_produce(messages: &[Message], encoding: ContentEncoding) -> Vec<u8> {
    let bodies: usize = messages.iter().map(|message| message.body.len() + 32).sum();
    let mut json = Vec::with_capacity(bodies + 32);
    json.extend_from_slice(b"{\"messages\":[");
    for (index, message) in messages.iter().enumerate() {
        json.extend_from_slice(if index > 0 { b",{\"content\":" } else { b"{\"content\":" });
        push_content(&mut json, &message.body, encoding);
        json.extend_from_slice(format!(",\"id\":\"{}\"}}", index + 1).as_bytes());
    }
    json.extend_from_slice(b"]}");
    json
}

fn push_content(json: &mut Vec<u8>, body: &Body, encoding: ContentEncoding) {
    let text = body.as_str();
    match encoding {
        // A JSON string is text already.
        ContentEncoding::Text if !text.trim_start().starts_with('"') => push_string(json, text),
        ContentEncoding::Json | ContentEncoding::Text => json.extend_from_slice(body.as_bytes()),
        ContentEncoding::Base64 => push_string(json, &STANDARD.encode(body.as_bytes())),
    }
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
pub(crate) fn decode_received(answer: &Bytes, decoding: ContentDecoding) -> Result<Received, String> {
    let mut messages = Vec::with_capacity(MAX_MESSAGES);
    let read =
        Scan::whole(answer, |scan| scan.items(|scan| element(scan, answer, decoding).map(|read| messages.push(read))));
    match read {
        Ok(_) => Ok(Received { messages, cut_off: None }),
        Err(fault) if messages.is_empty() => Err(fault.explain(answer)),
        Err(fault) => Ok(Received { messages, cut_off: Some(fault.explain(answer)) }),
    }
}

fn element(scan: &mut Scan<'_>, answer: &Bytes, decoding: ContentDecoding) -> Result<ReceivedMessage, Fault> {
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
        (_, Ok(Read::Text(text))) => decode(&text, decoding),
        // JSON that is no string needs no decoding.
        (_, Ok(Read::Json(json))) => Body::trusted(answer.slice_ref(json)),
        (text, Err(fault)) => Body::undecodable(answer.slice_ref(text), &fault.explain(answer)),
    };
    Ok(ReceivedMessage::new(body, Attributes::new(), Vec::new(), handler.as_ref()))
}

/// A content as it arrived.
enum Read<'a> {
    Text(Cow<'a, str>),
    Json(&'a [u8]),
}

fn content<'a>(scan: &mut Scan<'a>) -> Result<Read<'a>, Fault> {
    let start = scan.start();
    let mut content = None;
    scan.members(|name, scan| match &**name {
        b"content" => {
            let read = match scan.first() {
                Some(b'"') => Read::Text(scan.string()?),
                _ => Read::Json(scan.value()?),
            };
            name.once(&mut content, read)
        }
        _ => scan.value().map(drop),
    })?;
    content.ok_or_else(|| Fault::missing("content", start))
}

/// The body in a content.
fn decode(content: &str, decoding: ContentDecoding) -> Body {
    match (decoding, decoded(content)) {
        (ContentDecoding::Auto, Some(text)) => json_or_text(text),
        (ContentDecoding::Auto, None) => json_or_text(content.to_owned()),
        (ContentDecoding::Base64, Some(text)) => json_or_text(text),
        (ContentDecoding::Base64, None) => undecodable(content, "the content is not Base64 of text"),
        (ContentDecoding::Json, _) => Body::raw(Bytes::from(content.to_owned()))
            .unwrap_or_else(|error| undecodable(content, &format!("the content is no JSON: {error}"))),
        (ContentDecoding::Text, _) => quoted(content),
    }
}

/// The text in Base64; `None` for other text, and for an empty one.
fn decoded(content: &str) -> Option<String> {
    let bytes = STANDARD.decode(content.trim()).ok()?;
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// JSON as it is; other text becomes a JSON string.
fn json_or_text(text: String) -> Body {
    let text = Bytes::from(text);
    Body::raw(text.clone()).unwrap_or_else(|_| quoted(&String::from_utf8_lossy(&text)))
}

fn quoted(text: &str) -> Body {
    Body::json(text).unwrap_or_else(|error| undecodable(text, &error.to_string()))
}

fn undecodable(content: &str, reason: &str) -> Body {
    Body::undecodable(Bytes::from(content.to_owned()), reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_produce_request_is_as_documented() {
        let messages = [Message::text("hello roma-1"), Message::json(&serde_json::json!({"n": 2})).unwrap()];
        let json = String::from_utf8(encode_produce(&messages, ContentEncoding::Json)).unwrap();
        assert_eq!(json, r#"{"messages":[{"content":"hello roma-1","id":"1"},{"content":{"n":2},"id":"2"}]}"#);
        assert!(messages.iter().map(encoded_len).sum::<usize>() + r#"{"messages":[]}"#.len() >= json.len());
    }

    #[test]
    fn a_content_is_sent_as_the_user_says() {
        let messages = [Message::text("a\"b"), Message::json(&serde_json::json!({"n": 2})).unwrap()];
        for (encoding, contents) in [
            (ContentEncoding::Json, [r#""a\"b""#.to_owned(), r#"{"n":2}"#.to_owned()]),
            (ContentEncoding::Text, [r#""a\"b""#.to_owned(), r#""{\"n\":2}""#.to_owned()]),
            (ContentEncoding::Base64, [r#""a\"b""#, r#"{"n":2}"#].map(|text| format!("{:?}", STANDARD.encode(text)))),
        ] {
            let json: serde_json::Value = serde_json::from_slice(&encode_produce(&messages, encoding)).unwrap();
            let expected = contents.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
            assert_eq!(
                [&json["messages"][0]["content"], &json["messages"][1]["content"]],
                [&expected[0], &expected[1]]
            );
        }
    }

    /// `None`: the content cannot be decoded.
    #[test]
    fn a_content_is_read_as_the_user_says() {
        use ContentDecoding::{Auto, Base64, Json, Text};
        let json = STANDARD.encode(r#"{"a":1}"#);
        for (content, decoding, body) in [
            (json.as_str(), Auto, Some(r#"{"a":1}"#)),
            (&json, Base64, Some(r#"{"a":1}"#)),
            (&json, Json, None),
            (&json, Text, Some(r#""eyJhIjoxfQ==""#)),
            ("dGVzdA==", Base64, Some(r#""test""#)),
            ("dGVzdA==", Text, Some(r#""dGVzdA==""#)),
            ("[1, 2]", Auto, Some("[1, 2]")),
            ("[1, 2]", Base64, None),
            ("[1, 2]", Json, Some("[1, 2]")),
            ("plain", Json, None),
            ("plain", Text, Some(r#""plain""#)),
            ("1234", Json, Some("1234")),
            ("1234", Text, Some(r#""1234""#)),
        ] {
            let answer = serde_json::json!([{"handler": "h", "message": {"content": content}}]).to_string();
            let read = decode_received(&Bytes::from(answer), decoding).unwrap();
            let found = &read.messages[0];
            match body {
                Some(body) => {
                    assert_eq!((found.body.as_str(), found.undecodable()), (body, None), "{content} {decoding:?}")
                }
                None => assert!(found.undecodable().is_some(), "{content} {decoding:?}"),
            }
        }
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
        decode_received(&Bytes::from(text.to_owned()), ContentDecoding::Auto).unwrap()
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
        assert!(decode_received(&Bytes::from_static(b"<html>"), ContentDecoding::Auto).is_err());
    }
}
