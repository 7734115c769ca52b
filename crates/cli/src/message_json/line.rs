//! A message as JSON outside of the service: `{"body":…,"attributes":…,"tags":…,"delay_time":…,"deduplication_key":…}`,
//! one line or one item.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use dms_protocol::{
    limits,
    message::{Attributes, Body, DeadLetterInfo, MESSAGE_ID, Message},
};

/// The fields. Others are ignored, so that lines of `receive` can be sent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    #[serde(default)]
    attributes: Option<Attributes>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    delay_time: Option<f64>,
    #[serde(default)]
    deduplication_key: Option<String>,
    #[serde(default)]
    deduplication_window: Option<f64>,
}

/// A value that is there, also where it is `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// Reads a message; fields and attributes that it does not have are taken from `common`.
///
/// # Errors
/// When the text is not a message, with the reason and the allowed values.
pub(crate) fn parse(json: &[u8], common: &Message) -> Result<Message, String> {
    // The parser would take an array for the fields in their order, and name a type of this program for other values.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err("is not a message: write {\"body\": …}".to_owned());
    }
    let fields: Fields<'_> = serde_json::from_slice(json).map_err(|error| format!("is not a message: {error}"))?;
    let body = fields.body.ok_or("has no `body`: write {\"body\": …}")?;
    let body = Body::raw(body.get().to_owned()).map_err(|error| error.to_string())?;
    let mut message = Message { body, ..common.clone() };
    message.attributes = fields.attributes.unwrap_or_default();
    // Few are common, while a line may have any number.
    for (name, value) in common.attributes.iter() {
        if !message.attributes.contains(name) {
            message.attributes.insert_raw(name, value.to_owned());
        }
    }
    if let Some(tags) = fields.tags {
        message.tags = tags;
    }
    if let Some(millis) = fields.delay_time {
        message.delay = Duration::try_from_secs_f64(millis / 1000.0)
            .map_err(|_| format!("`delay_time` is {millis}: 0 to 604800000 ms (7 days) are allowed"))?;
    }
    if fields.deduplication_key.is_some() {
        message.deduplication_key = fields.deduplication_key;
    }
    if let Some(millis) = fields.deduplication_window {
        let window = Duration::try_from_secs_f64(millis / 1000.0);
        let window =
            window.map_err(|_| format!("`deduplication_window` is {millis}: 1000 to 604800000 ms are allowed"))?;
        message.deduplication_window = Some(window);
    }
    Ok(message)
}

/// As [`parse`], with the `id` of the line, if it has one.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_copy(json: &[u8], common: &Message) -> Result<Message, String> {
    #[derive(Deserialize)]
    struct Original {
        id: String,
    }
    let mut message = parse(json, common)?;
    if let Ok(Original { id }) = serde_json::from_slice(json) {
        message.attributes.insert(MESSAGE_ID, id);
    }
    Ok(message)
}

/// Whether a line of `dlq dump` or of an export of the dashboard is the original of a dead letter that was edited and sent again.
pub(crate) fn is_edited_original(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Line {
        dead_letter: DeadLetterInfo,
    }
    serde_json::from_slice(json).is_ok_and(|line: Line| line.dead_letter.is_edited_original())
}

/// Checks a message against the service's limits, so that one that breaks a limit costs no other its request.
///
/// # Errors
/// Says which limit is broken.
pub(crate) fn check(message: &Message) -> Result<(), String> {
    limits::total_bytes(message.body.len())
        .and_then(|()| limits::labels(&message.tags))
        .and_then(|()| limits::delay(message.delay))
        .and_then(|()| limits::deduplication(message.deduplication_key.as_deref(), message.deduplication_window))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_line_overrides_what_is_common() {
        let common = Message::text("").tag("red").attribute("a", 1).attribute("b", 1);
        let line = br#"{"body": [1, 2], "attributes": {"b": 2}, "tags": ["blue"], "delay_time": 6000.9, "handler": "x",
            "deduplication_key": "k", "deduplication_window": 60000}"#;
        let message = parse(line, &common).unwrap();
        assert_eq!(message.body.as_str(), "[1, 2]");
        assert_eq!(message.attributes.to_json(), r#"{"b":2,"a":1}"#);
        assert_eq!((message.tags, message.delay.as_millis()), (vec!["blue".to_owned()], 6000));
        let (key, window) = (message.deduplication_key.as_deref(), message.deduplication_window);
        assert_eq!((key, window), (Some("k"), Some(Duration::from_secs(60))));
    }

    #[test]
    fn a_copy_keeps_the_id_of_its_line() {
        let copy =
            |line: &str| parse_copy(line.as_bytes(), &Message::text("")).unwrap().attributes.to_json().into_owned();
        assert_eq!(copy(r#"{"body":1,"id":"m_R"}"#), r#"{"dms-message-id":"m_R"}"#);
        assert_eq!(copy(r#"{"body":1,"id":"m_R","attributes":{"dms-message-id":"a"}}"#), r#"{"dms-message-id":"m_R"}"#);
        for line in [r#"{"body":1,"id":7}"#, r#"{"body":1}"#] {
            assert_eq!(copy(line), "{}");
        }
    }

    #[test]
    fn the_original_of_an_edited_dead_letter_is_known_by_its_reason() {
        let is = |line: &str| is_edited_original(line.as_bytes());
        assert!(is(r#"{"body":1,"dead_letter":{"reason":"edited","attempts":1}}"#));
        for line in
            [r#"{"body":1,"dead_letter":{"reason":"failed","attempts":1}}"#, r#"{"body":{"reason":"edited"}}"#, "{"]
        {
            assert!(!is(line), "{line}");
        }
    }

    #[test]
    fn null_is_a_body_and_numbers_keep_their_digits() {
        let line = br#"{"body":null,"attributes":{"n":1e3,"i":123456789012345678901234567890}}"#;
        let message = parse(line, &Message::text("")).unwrap();
        assert_eq!(message.body.as_str(), "null");
        assert_eq!(message.attributes.to_json(), r#"{"n":1e3,"i":123456789012345678901234567890}"#);
    }

    #[test]
    fn a_bad_line_says_why() {
        let common = Message::text("");
        let reason = |line: &str| parse(line.as_bytes(), &common).and_then(|message| check(&message)).unwrap_err();
        assert!(reason("{").starts_with("is not a message: EOF"));
        for other in ["1", " [{}]", "x", "\"text\""] {
            assert_eq!(reason(other), "is not a message: write {\"body\": …}");
        }
        assert_eq!(reason("{}"), "has no `body`: write {\"body\": …}");
        assert!(reason(r#"{"body": 1, "delay_time": -1}"#).contains("`delay_time` is -1"));
        let window = r#"{"body": 1, "deduplication_window": 5000}"#;
        assert!(reason(window).ends_with("a deduplication key is needed"), "{}", reason(window));
        assert!(reason(r#"{"body": 1, "deduplication_key": ""}"#).contains("1 to 512 bytes are allowed"));
        assert!(reason(r#"{"body": 1, "tags": ["a b"]}"#).contains("label is \"a b\""));
        assert!(
            reason(r#"{"body": 1, "delay_time": 31622400001}"#)
                .contains("604800000 ms (7 days) are allowed, and 366 days")
        );
    }
}
