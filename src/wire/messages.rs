//! Messages: send, consume, acknowledge (API reference 5.3; 7.1.8-7.1.10, 7.1.12, 7.1.13).
//!
//! Bodies are never parsed. They are copied into requests, and are slices of the answers in which they arrived.

use std::io::{self, Write};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Dialect, Wording, error,
    extensions::Extensions,
    mqs, number,
    received::{self, Received},
    text,
};
use crate::{
    json::push_string,
    limits::MAX_MESSAGES,
    message::{AckLine, AckStatus, FailureReport, Message, MessageId},
    text::cut,
};

/// The body of a send.
pub(crate) fn encode_send(
    wording: &Wording,
    messages: &[Message],
    return_id: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    let bodies: usize = messages.iter().map(|message| message.body.len() + 64).sum();
    let mut json = Vec::with_capacity(bodies + 64);
    json.extend_from_slice(b"{\"messages\":[");
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        encode_message(&mut json, wording, message)?;
    }
    json.push(b']');
    if return_id {
        json.extend_from_slice(format!(",\"{}\":true", wording.return_id).as_bytes());
    }
    json.push(b'}');
    Ok(json)
}

/// The exact size of a message in a send, in bytes.
pub(crate) fn encoded_len(wording: &Wording, message: &Message) -> Result<usize, serde_json::Error> {
    if wording.dialect == Dialect::Mqs {
        return Ok(mqs::encoded_len(message));
    }
    let mut count = Count(0);
    encode_message(&mut count, wording, message)?;
    Ok(count.0)
}

/// A writer that counts bytes and drops them.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode_message(json: &mut impl Write, wording: &Wording, message: &Message) -> Result<(), serde_json::Error> {
    let mut put = |bytes: &[u8]| json.write_all(bytes).map_err(serde_json::Error::io);
    put(b"{\"body\":")?;
    put(message.body.as_bytes())?;
    if !message.attributes.is_empty() {
        put(b",\"attributes\":")?;
        put(message.attributes.to_json().as_bytes())?;
    }
    if !message.tags.is_empty() {
        put(b",\"tags\":")?;
        put(&serde_json::to_vec(&message.tags)?)?;
    }
    if message.delay.as_millis() > 0 {
        put(format!(",\"{}\":{}", wording.delay_time, message.delay.as_millis()).as_bytes())?;
    }
    if let Some(key) = &message.deduplication_key {
        put(b",\"deduplication_key\":")?;
        put(&serde_json::to_vec(key)?)?;
        if let Some(window) = message.deduplication_window {
            put(format!(",\"deduplication_window\":{}", window.as_millis()).as_bytes())?;
        }
    }
    put(b"}")
}

/// The result of one message of a send.
#[derive(Debug, PartialEq)]
pub(crate) struct Sent {
    /// Whether the service stored the message.
    pub(crate) taken: bool,
    /// The message's id, if ids were requested.
    pub(crate) id: Option<MessageId>,
    /// Whether it was not stored, because of its deduplication key.
    pub(crate) duplicate: bool,
    /// The code of the failure, as received.
    pub(crate) code: Option<String>,
    /// The text of the failure.
    pub(crate) error: String,
}

/// What this project's server says of a message that it has stored.
const STORED: &[u8] = br#"{"error":null,"error_code":null,"state":0}"#;

/// Reads the usual answer of this project's server to a send: every message is stored, and nothing else is told. Returns `None` for
/// any other answer.
fn all_stored(body: &[u8]) -> Option<Vec<Sent>> {
    let mut rest = body.strip_prefix(br#"{"messages":["#)?;
    let mut sent = Vec::with_capacity(MAX_MESSAGES);
    loop {
        rest = rest.strip_prefix(STORED)?;
        sent.push(Sent { taken: true, id: None, duplicate: false, code: None, error: String::new() });
        match rest {
            b"]}" => return Some(sent),
            _ => rest = rest.strip_prefix(b",")?,
        }
    }
}

/// Reads the answer to a send, in the order of its messages.
pub(crate) fn decode_sent(body: &[u8]) -> Result<Vec<Sent>, serde_json::Error> {
    if let Some(sent) = all_stored(body) {
        return Ok(sent);
    }
    #[derive(Deserialize)]
    struct List {
        // The table of V1.0 has `message`; its example and every client have `messages`.
        #[serde(alias = "message")]
        messages: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default, deserialize_with = "number")]
        state: u64,
        #[serde(default)]
        error_code: Value,
        #[serde(default, deserialize_with = "text")]
        error: String,
        id: Option<String>,
        /// An extension of this project's server.
        #[serde(default)]
        duplicate: bool,
    }
    let list: List = serde_json::from_slice(body)?;
    let sent = |entry: Entry| Sent {
        taken: entry.state == 0,
        id: entry.id.map(MessageId::new),
        duplicate: entry.duplicate,
        code: error::code(entry.error_code),
        error: entry.error,
    };
    Ok(list.messages.into_iter().map(sent).collect())
}

/// The header of a consume answer with each message's position in its stream, its attempt, and when it entered the
/// stream, such as `17.1.1795550351698`. It is an extension of this project's server; the body follows the API
/// reference exactly.
pub(crate) const DELIVERIES: &str = "x-dms-deliveries";

/// The header of a consume answer with the milliseconds that the call waited for its messages. Their lease began at
/// least this time after the call was sent. It is an extension of this project's server.
pub(crate) const WAITED: &str = "x-dms-waited-ms";

/// One entry of [`DELIVERIES`]: position, attempt, and time in Unix milliseconds. Further fields of later versions are
/// ignored.
fn delivery(entry: &[u8]) -> (Option<u64>, Option<u32>, Option<i64>) {
    let mut parts = entry.split(|byte| *byte == b'.');
    let mut part = || parts.next().and_then(whole);
    let (place, attempt, entered) = (part(), part(), part());
    (place, attempt.and_then(|attempt| attempt.try_into().ok()), entered.and_then(|entered| entered.try_into().ok()))
}

/// Reads a decimal number; `None` for other text and for numbers that are too large.
fn whole(digits: &[u8]) -> Option<u64> {
    let more = |sum: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, more) }
}

/// Reads the answer to a consume call, with its [`DELIVERIES`] if present. The bodies share the memory of the answer.
///
/// # Errors
/// When not even the first message can be read.
pub(crate) fn decode_received(answer: &Bytes, deliveries: &str) -> Result<Received, String> {
    let mut received = received::read(answer)?;
    let deliveries = deliveries.as_bytes().split(|byte| *byte == b',').map(delivery);
    for (message, delivery) in received.messages.iter_mut().zip(deliveries) {
        (message.sequence, message.attempt, message.entered_ms) = delivery;
    }
    Ok(received)
}

/// The longest error text of an acknowledgement, in bytes.
const MAX_ERROR_BYTES: usize = 1024;
/// The longest name of a worker in an acknowledgement, in bytes.
const MAX_WORKER_BYTES: usize = 128;

/// The body of an acknowledgement, in the order of the messages. It uses only the given extensions; without them, the
/// first message that is not settled ends the list.
pub(crate) fn encode_ack<'a>(
    dialect: Dialect,
    acks: impl Iterator<Item = AckLine<'a>>,
    extensions: Extensions,
) -> Vec<u8> {
    let mut json = Vec::with_capacity(1024);
    json.extend_from_slice(match dialect {
        Dialect::Dms => b"{\"message\":[",
        Dialect::Mqs => b"{\"messages\":[",
    });
    for (index, AckLine { handle, status, failure }) in acks.enumerate() {
        let understood = match status {
            AckStatus::Release if !extensions.release() => AckStatus::Fail,
            AckStatus::Reject if !extensions.reject() => AckStatus::Fail,
            understood => understood,
        };
        json.extend_from_slice(if index > 0 { b",{\"handler\":" } else { b"{\"handler\":" });
        push_string(&mut json, handle.as_str());
        json.extend_from_slice(b",\"status\":\"");
        json.extend_from_slice(understood.as_str().as_bytes());
        json.push(b'"');
        if let (Some(failure), true, AckStatus::Fail | AckStatus::Reject) = (failure, extensions.reason(), understood) {
            push_failure(&mut json, failure);
        }
        json.push(b'}');
        if understood != status {
            break;
        }
    }
    json.extend_from_slice(b"]}");
    json
}

/// The members of a line with the reason.
fn push_failure(json: &mut Vec<u8>, failure: &FailureReport) {
    let FailureReport { reason, error, worker, first_failure_ms, last_failure_ms } = failure;
    let texts =
        [("reason", &**reason), ("error", cut(error, MAX_ERROR_BYTES)), ("worker", cut(worker, MAX_WORKER_BYTES))];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        json.extend_from_slice(format!(",\"{name}\":").as_bytes());
        push_string(json, text);
    }
    for (name, ms) in [("first_failure", first_failure_ms), ("last_failure", last_failure_ms)] {
        if let Some(ms) = ms {
            json.extend_from_slice(format!(",\"{name}\":{ms}").as_bytes());
        }
    }
}

/// Reads the answer to an acknowledgement: (success, fail).
pub(crate) fn decode_acked(body: &[u8]) -> Result<(usize, usize), serde_json::Error> {
    #[derive(Deserialize)]
    struct Counts {
        #[serde(default, deserialize_with = "number")]
        success: u64,
        #[serde(default, deserialize_with = "number")]
        fail: u64,
    }
    let counts: Counts = serde_json::from_slice(body)?;
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok((count(counts.success), count(counts.fail)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        message::{AckHandle, Body},
        wire::ApiVersion,
    };

    #[test]
    fn a_message_is_written_with_what_it_has() {
        let plain = Message::text("a\"b");
        let full = Message::new(Body::raw(&b" {\"x\": 1} "[..]).unwrap())
            .attribute("n", 1)
            .tag("blue")
            .delay(Duration::from_micros(6_000_900))
            .deduplication_key("a\"b")
            .deduplication_window(Duration::from_secs(60));
        let json = |version: ApiVersion, id| {
            String::from_utf8(encode_send(version.wording(), &[plain.clone(), full.clone()], id).unwrap()).unwrap()
        };
        assert_eq!(
            json(ApiVersion::V2, true),
            r#"{"messages":[{"body":"a\"b"},{"body":{"x": 1},"attributes":{"n":1},"tags":["blue"],"delay_time":6000,"deduplication_key":"a\"b","deduplication_window":60000}],"return_id":true}"#
        );
        assert_eq!(
            json(ApiVersion::V1_0, true),
            r#"{"messages":[{"body":"a\"b"},{"body":{"x": 1},"attributes":{"n":1},"tags":["blue"],"delayTime":6000,"deduplication_key":"a\"b","deduplication_window":60000}],"returnId":true}"#
        );
        assert!(!json(ApiVersion::V2, false).contains("return_id"));
        let sizes = [&plain, &full].map(|message| encoded_len(ApiVersion::V2.wording(), message).unwrap());
        assert_eq!(sizes[0] + sizes[1] + r#"{"messages":[,]}"#.len(), json(ApiVersion::V2, false).len());
    }

    #[test]
    fn a_received_body_is_a_slice_of_its_answer() {
        let answer = Bytes::from_static(
            br#"[{"message":{"body": {"foo":"123="},"attributes":null,"new":1},"handler":"a\/b","tags":["t"]},
                 {"message":{"body":"x","attributes":{"a":1},"tags":["inner"]},"handler":"h2"}]"#,
        );
        let received = decode_received(&answer, "17.2.1795550351698").unwrap().messages;
        assert_eq!(received[0].body.as_str(), r#"{"foo":"123="}"#);
        assert!(answer.as_ptr_range().contains(&received[0].body.as_bytes().as_ptr()));
        assert_eq!(received[0].handle.as_str(), "a/b");
        assert_eq!(received[0].tags, ["t"]);
        assert_eq!((received[0].sequence, received[0].attempt), (Some(17), Some(2)));
        assert_eq!(received[0].entered_ms, Some(1_795_550_351_698));
        assert_eq!((received[1].sequence, received[1].attempt), (None, None));
        assert_eq!((received[1].tags[0].as_str(), received[1].attributes.get_u64("a")), ("inner", Some(1)));
        assert_eq!(decode_received(&Bytes::from_static(b"[]"), "spoilt,x.y,.").unwrap().messages, []);
    }

    /// Fields that the service does not announce are left out. The other fields express the same as far as they can.
    #[test]
    fn an_acknowledgement_says_what_its_service_understands() {
        let (done, poison, back) = (AckHandle::new("a"), AckHandle::new("b"), AckHandle::new("c"));
        let failure = FailureReport {
            reason: "rejected".into(),
            error: "no \"such\" account".to_owned(),
            worker: "w-1".to_owned(),
            first_failure_ms: Some(5),
            last_failure_ms: Some(7),
        };
        let lines = [
            AckLine::new(&done, AckStatus::Success),
            AckLine::new(&poison, AckStatus::Reject).failure(&failure),
            AckLine::new(&back, AckStatus::Release),
        ];
        let text = |lines: &[AckLine<'_>], extensions| {
            String::from_utf8(encode_ack(Dialect::Dms, lines.iter().copied(), extensions)).unwrap()
        };
        assert_eq!(
            text(&lines, Extensions::ALL),
            r#"{"message":[{"handler":"a","status":"success"},{"handler":"b","status":"reject","reason":"rejected","error":"no \"such\" account","worker":"w-1","first_failure":5,"last_failure":7},{"handler":"c","status":"release"}]}"#
        );
        assert_eq!(
            text(&lines, Extensions::NONE),
            r#"{"message":[{"handler":"a","status":"success"},{"handler":"b","status":"fail"}]}"#
        );
        assert_eq!(text(&lines[2..], Extensions::NONE), r#"{"message":[{"handler":"c","status":"fail"}]}"#);
        let failed = [AckLine::new(&poison, AckStatus::Fail).failure(&failure)];
        assert!(text(&failed, Extensions::ALL).contains(r#""status":"fail","reason":"rejected","error":"no "#));
        assert_eq!(text(&failed, Extensions::NONE), r#"{"message":[{"handler":"b","status":"fail"}]}"#);
    }

    #[test]
    fn what_is_received_is_sent_on_byte_for_byte() {
        let message =
            r#"{"body":null,"attributes":{"e":1e3,"z":-0,"i":123456789012345678901234567890,"n":{"a":1, "a":2}}}"#;
        let answer = Bytes::from(format!(r#"[{{"message":{message},"handler":"h"}}]"#));
        let received = decode_received(&answer, "").unwrap().messages.remove(0);
        let copy = Message { attributes: received.attributes, ..Message::new(received.body) };
        let json = String::from_utf8(encode_send(ApiVersion::V2.wording(), &[copy], false).unwrap()).unwrap();
        assert_eq!(json, format!(r#"{{"messages":[{message}]}}"#));
    }

    #[test]
    fn a_failed_message_of_a_send_keeps_its_code() {
        let sent = decode_sent(
            br#"{"messages":[{"error":null,"error_code":null,"state":0,"id":"i"},
                {"error":"too large","error_code":10540011,"state":1}]}"#,
        )
        .unwrap();
        assert_eq!(
            sent[0],
            Sent { taken: true, id: Some(MessageId::new("i")), duplicate: false, code: None, error: String::new() }
        );
        assert_eq!((sent[1].taken, sent[1].code.as_deref()), (false, Some("10540011")));
    }

    /// The short way and the usual one read the same.
    #[test]
    fn the_usual_answer_to_a_send_is_read_as_any_other() {
        let line = str::from_utf8(STORED).unwrap();
        for count in [1, 2, 10] {
            let usual = format!("{{\"messages\":[{}]}}", vec![line; count].join(","));
            assert_eq!(all_stored(usual.as_bytes()).map(|sent| sent.len()), Some(count));
            let other = format!(" {usual}");
            assert_eq!(all_stored(other.as_bytes()), None);
            assert_eq!(decode_sent(usual.as_bytes()).unwrap(), decode_sent(other.as_bytes()).unwrap());
        }
        for other in
            ["", "{\"messages\":[]}", &format!("{{\"messages\":[{line}"), &format!("{{\"messages\":[{line},]}}")]
        {
            assert_eq!(all_stored(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        for bad in ["{}", "[{}]", "", "[", r#"{"error":"x"}"#] {
            assert!(decode_received(&Bytes::from_static(bad.as_bytes()), "").is_err(), "{bad} passed");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused_without_a_panic(text in "\\PC{0,40}|[\\[\\]{}\",:a-z0-9 ]{0,60}") {
            let answer = Bytes::from(text.clone());
            let _ = decode_received(&answer, "");
            let _ = decode_sent(&answer);
            let _ = decode_acked(&answer);
            let _ = error::ErrorBody::read(&answer);
        }

        #[test]
        fn what_is_written_is_json_of_the_size_that_was_counted(
            body in "\\PC{0,40}", name in "\\PC{0,10}", value in "\\PC{0,20}", delay in 0..604_800_000u64,
        ) {
            let message = Message::text(&body)
                .attribute(name.clone(), value.clone())
                .tag("t")
                .delay(Duration::from_millis(delay));
            let wording = ApiVersion::V2.wording();
            let json = encode_send(wording, std::slice::from_ref(&message), false).unwrap();
            let read: Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(&read["messages"][0]["body"], &Value::from(body));
            prop_assert_eq!(&read["messages"][0]["attributes"][&name], &Value::from(value));
            prop_assert_eq!(read["messages"][0]["delay_time"].as_u64().unwrap_or(0), delay);
            prop_assert_eq!(encoded_len(wording, &message).unwrap() + r#"{"messages":[]}"#.len(), json.len());
        }
    }
}
