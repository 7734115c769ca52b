//! The answer to a consume call. An unreadable message does not cost the other messages of its batch.
//!
//! Each message is read strictly. If that fails, its end is found by brackets and quotes, and the message is delivered
//! with its text and the reason. Reading ends at an unreadable acknowledgement token, because neither that message nor,
//! as acknowledgements go by order, the messages after it could be acknowledged.
//!
//! This file reads with [`Scan`] and not with serde, because bodies and attributes are passed on byte for byte as
//! slices of the answer, and because serde gives up at the first fault.

use std::{borrow::Cow, str};

use bytes::Bytes;

use crate::{
    json::{Fault, Scan, is_utf8},
    limits::MAX_MESSAGES,
    message::{Attributes, Body, MessageId, ReceivedMessage},
};

/// The deepest nesting of attributes that is accepted, because the user's parser has to read them, too.
const LEVELS: usize = 127;

/// The readable part of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    /// The messages in the order of consumption.
    pub(crate) messages: Vec<ReceivedMessage>,
    /// Why the rest of the answer cannot be read.
    pub(crate) cut_off: Option<String>,
}

/// Reads an answer. Bodies and attributes share its memory.
///
/// # Errors
/// When not even the first message can be read.
pub(crate) fn read(answer: &Bytes) -> Result<Received, String> {
    let (messages, _, read) = read_with(answer, false);
    if read.is_ok() {
        return Ok(Received { messages, cut_off: None });
    }
    // The second pass checks the encoding of each message separately; the first one checks the whole text.
    let (messages, complete, read) = read_with(answer, true);
    match read {
        Err(fault) if messages.is_empty() => Err(reason(&fault, answer)),
        Err(fault) if !complete => Ok(Received { messages, cut_off: Some(reason(&fault, answer)) }),
        _ => Ok(Received { messages, cut_off: None }),
    }
}

/// The messages that were read, whether these are all, and the fault of the rest or of the whole text.
fn read_with(answer: &Bytes, check_utf8: bool) -> (Vec<ReceivedMessage>, bool, Result<(), Fault>) {
    let (mut messages, mut complete) = (Vec::with_capacity(MAX_MESSAGES), false);
    let read = Scan::whole(answer, |scan| {
        scan.items(|scan| element(scan, answer, check_utf8).map(|message| messages.push(message)))?;
        complete = true;
        Ok(())
    });
    (messages, complete, read)
}

fn reason(fault: &Fault, answer: &[u8]) -> String {
    let reason = fault.explain(answer);
    // A fault outside of all values is worded for the server.
    reason.strip_prefix("The request").map_or(reason.clone(), |rest| format!("the answer{rest}"))
}

/// One element: a message, its token, and perhaps its labels. The API reference has the labels inside the message in
/// its tables, and next to it in its examples.
fn element(scan: &mut Scan<'_>, answer: &Bytes, check_utf8: bool) -> Result<ReceivedMessage, Fault> {
    let start = scan.start();
    let (mut content, mut handler, mut labels, mut id, mut died) = (None, None, None, None, None);
    scan.members(|name, scan| match &**name {
        b"message" => name.once(&mut content, message(scan)?),
        b"handler" => name.once(&mut handler, scan.string()?),
        b"tags" => name.once(&mut labels, scan.part(tags)?),
        b"id" => name.once(&mut id, scan.part(Scan::string)?),
        b"dead_letter" => name.once(&mut died, scan.part(Scan::value)?),
        // A member of a later version.
        _ => scan.part(Scan::value).map(drop),
    })?;
    let handler = handler.ok_or_else(|| Fault::missing("`handler`", start))?;
    let (text, parts) = content.unwrap_or_else(|| (scan.since(start), Err(Fault::missing("`message`", start))));
    let parts = if check_utf8 && !is_utf8(text) { Err(not_utf8(answer, text)) } else { parts };
    let mut message = deliver(answer, text, parts, labels, &handler);
    // An unreadable id or reason must not cost the message.
    message.id = id.and_then(Result::ok).filter(|id| !id.is_empty()).map(MessageId::new);
    message.dead_letter = died.and_then(|text| serde_json::from_slice(text.ok()?).ok());
    Ok(message)
}

/// The fault of a part that is not UTF-8.
fn not_utf8(answer: &[u8], part: &[u8]) -> Fault {
    let start = (part.as_ptr() as usize).saturating_sub(answer.as_ptr() as usize);
    Fault::not_utf8(start + str::from_utf8(part).map_or_else(|error| error.valid_up_to(), str::len))
}

/// The parts of a message.
struct Parts<'a> {
    body: &'a [u8],
    attributes: Option<&'a [u8]>,
    tags: Option<Vec<Cow<'a, str>>>,
}

/// A message: its text, and its parts or the fault in them.
type Content<'a> = (&'a [u8], Result<Parts<'a>, Fault>);

/// # Errors
/// When not even the end of the message can be found.
fn message<'a>(scan: &mut Scan<'a>) -> Result<Content<'a>, Fault> {
    let start = scan.start();
    let parts = scan.part(|scan| {
        let (mut body, mut attributes, mut labels) = (None, None, None);
        scan.members(|name, scan| match &**name {
            b"body" => name.once(&mut body, scan.value()?),
            b"attributes" => name.once(&mut attributes, scan.nullable(object)?),
            b"tags" => name.once(&mut labels, tags(scan)?),
            _ => scan.value().map(drop),
        })?;
        let body = body.ok_or_else(|| Fault::missing("`body`", start))?;
        Ok(Parts { body, attributes: attributes.flatten(), tags: labels.flatten() })
    })?;
    Ok((scan.since(start), parts))
}

/// Attributes: an object whose names and values strict parsers can read.
fn object<'a>(scan: &mut Scan<'a>) -> Result<&'a [u8], Fault> {
    match scan.first() {
        Some(b'{') => scan.portable(LEVELS, 0),
        _ => Err(Fault::shape("an object", scan.start())),
    }
}

fn tags<'a>(scan: &mut Scan<'a>) -> Result<Option<Vec<Cow<'a, str>>>, Fault> {
    scan.nullable(|scan| scan.items(Scan::string))
}

fn deliver(
    answer: &Bytes,
    text: &[u8],
    parts: Result<Parts<'_>, Fault>,
    beside: Option<Result<Option<Vec<Cow<'_, str>>>, Fault>>,
    handler: &str,
) -> ReceivedMessage {
    let read = parts.and_then(|parts| Ok((parts.body, parts.attributes, parts.tags.or(beside.transpose()?.flatten()))));
    match read {
        Ok((body, attributes, tags)) => {
            let body = Body::trusted(answer.slice_ref(body));
            let attributes = match attributes {
                None | Some(b"{}") => Attributes::new(),
                Some(text) => Attributes::trusted(answer.slice_ref(text)),
            };
            let tags = tags.unwrap_or_default().into_iter().map(Cow::into_owned).collect();
            ReceivedMessage::new(body, attributes, tags, handler)
        }
        Err(fault) => {
            let body = Body::undecodable(answer.slice_ref(text), &reason(&fault, answer));
            ReceivedMessage::new(body, Attributes::new(), Vec::new(), handler)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn messages(answer: &str) -> Vec<ReceivedMessage> {
        let Received { messages, cut_off } = read(&Bytes::from(answer.to_owned())).unwrap();
        assert_eq!(cut_off, None, "{answer}");
        messages
    }

    /// An answer of three, the second of which has this text.
    fn among_others(message: &[u8]) -> Bytes {
        let (before, after) =
            (r#"[{"message":{"body":1},"handler":"a"},{"message":"#, r#"{"message":{"body":3},"handler":"c"}]"#);
        Bytes::from([before.as_bytes(), message, br#","handler":"b"},"#, after.as_bytes()].concat())
    }

    #[test]
    fn answers_are_read_as_every_service_writes_them() {
        let received = messages(
            r#" [ {"message":{"body": {"foo":"123="} ,"attributes":null,"new":1},"handler":"a\/b","tags":["t"]},
                 {"handler":"h2","message":{"attributes":{"a":1e3},"tags":["in\u006eer"],"body":null},"tags":["outer"],"later":{}},
                 {"me\u0073sage":{"body":"x","tags":null,"attributes":{}},"handler":"h3","tags":null} ] "#,
        );
        assert_eq!(received[0].body.as_str(), r#"{"foo":"123="}"#);
        assert_eq!((received[0].handle.as_str(), &*received[0].tags), ("a/b", &["t".to_owned()][..]));
        assert_eq!((received[1].body.as_str(), &*received[1].tags), ("null", &["inner".to_owned()][..]));
        assert_eq!(received[1].attributes.to_json(), r#"{"a":1e3}"#);
        assert!(received[2].tags.is_empty() && received[2].attributes.is_empty());
        assert!(received.iter().all(|message| message.undecodable().is_none()));
        assert_eq!(messages("[]"), []);
    }

    #[test]
    fn a_message_that_cannot_be_read_harms_no_other() {
        let deep = format!(r#"{{"body":1,"attributes":{{"a":{}{}}}}}"#, "[".repeat(127), "]".repeat(127));
        let long = format!(r#"{{"body":1,"attributes":{{"n":{}}}}}"#, "9".repeat(400));
        let cases: [(&[u8], &str); 20] = [
            (br#"{"body":1,"attributes":{"who":"\ud83d"}}"#, "[1].message.attributes.who has `\\ud83d`"),
            (br#"{"body":1,"attributes":{"\udc00":1}}"#, "half a surrogate pair"),
            (br#"{"body":1,"attributes":{"n":1e999}}"#, "IEEE double"),
            (long.as_bytes(), "IEEE double"),
            (deep.as_bytes(), "127 levels"),
            (br#"{"body":1,"attributes":[]}"#, "an object is expected"),
            (br#"{"body":1,"attributes":"a"}"#, "an object is expected"),
            (br#"{"attributes":{}}"#, "has no `body`"),
            (br#"{"body":}"#, "is not JSON"),
            (br#"{"body":01}"#, "is not JSON"),
            (br#"{"body":"a\x"}"#, "begins no escape"),
            (br#"{"body":1,"body":2}"#, "twice"),
            (br#"{"body":1,"tags":"t"}"#, "an array is expected"),
            (br#"{"body":1,"tags":[1]}"#, "a string is expected"),
            (br#"{"body":1 "tags":[]}"#, "is not JSON"),
            (br#"{body:1}"#, "is not JSON"),
            (b"{\"body\":\"\xff\"}", "UTF-8"),
            (b"{\"body\":\"a\nb\"}", "control character"),
            (b"null", "an object is expected"),
            (b"7", "an object is expected"),
        ];
        for (text, expected) in cases {
            let shown = String::from_utf8_lossy(text);
            let answer = among_others(text);
            let Received { messages, cut_off } = read(&answer).unwrap();
            assert_eq!((messages.len(), cut_off), (3, None), "{shown}");
            let handles: Vec<_> = messages.iter().map(|message| message.handle.as_str()).collect();
            assert_eq!(handles, ["a", "b", "c"], "{shown}");
            let why: Vec<_> = messages.iter().map(ReceivedMessage::undecodable).collect();
            assert_eq!((why[0], why[2]), (None, None), "{shown}");
            assert!(why[1].is_some_and(|why| why.contains(expected) && why.len() < 400), "{shown}: {:?}", why[1]);
            assert_eq!(messages[1].body.as_bytes(), text, "its text is kept: {shown}");
            assert!(messages[1].body.parse::<serde_json::Value>().is_err(), "and makes no value: {shown}");
        }
    }

    #[test]
    fn a_dead_letter_says_why_it_died() {
        let told = r#"{"reason":"failed","error":"db is down","worker":"w1","attempts":3,"first_failure":5,"later":{},"last_failure":9}"#;
        let received = messages(&format!(
            r#"[{{"message":{{"body":1}},"handler":"a","dead_letter":{told}}},
                {{"message":{{"body":2}},"handler":"b","dead_letter":{{"reason":"lease_expired","attempts":1}}}},
                {{"message":{{"body":3}},"handler":"c","dead_letter":{{"reason":7}}}},
                {{"message":{{"body":4}},"handler":"d","dead_letter":"gone"}},
                {{"message":{{"body":5}},"handler":"e"}}]"#
        ));
        let info = received[0].dead_letter.as_ref().unwrap();
        assert_eq!((info.error.as_deref(), info.worker.as_deref()), (Some("db is down"), Some("w1")));
        assert_eq!((info.attempts, info.first_failure_ms, info.last_failure_ms), (3, Some(5), Some(9)));
        assert_eq!(info.to_string(), "failed: db is down (worker w1, attempt 3)");
        assert_eq!(received[1].dead_letter.as_ref().unwrap().to_string(), "lease_expired (attempt 1)");
        let read: Vec<_> = received.iter().map(|one| (one.dead_letter.is_some(), one.undecodable())).collect();
        assert_eq!(read, [(true, None), (true, None), (false, None), (false, None), (false, None)]);
    }

    #[test]
    fn an_id_beside_a_message_is_its_own() {
        let received = messages(
            r#"[{"message":{"body":1},"handler":"a","id":"m_RjkDiiQaIPJBFSAAAAAAAR"},
                {"message":{"body":2,"id":"inside"},"handler":"b","id":""},
                {"message":{"body":3},"handler":"c","id":7},
                {"message":{"body":4},"handler":"d","id":null}]"#,
        );
        let ids: Vec<_> = received.iter().map(|one| one.id.as_ref().map(MessageId::as_str)).collect();
        assert_eq!(ids, [Some("m_RjkDiiQaIPJBFSAAAAAAAR"), None, None, None]);
        assert!(received.iter().all(|message| message.undecodable().is_none()));
    }

    #[test]
    fn labels_beside_a_message_belong_to_it() {
        let received = messages(
            r#"[{"message":{"body":1},"handler":"a","tags":7},{"handler":"b"},{"message":{"body":3},"handler":"c"}]"#,
        );
        assert!(received[0].undecodable().is_some_and(|why| why.contains("an array is expected")));
        assert!(received[1].undecodable().is_some_and(|why| why.contains("has no `message`")));
        assert_eq!(received[2].undecodable(), None);
    }

    #[test]
    fn without_its_token_a_message_ends_the_reading() {
        let first = r#"[{"message":{"body":1},"handler":"a"}"#;
        for (rest, expected) in [
            (r#",{"message":{"body":2}},{"message":{"body":3},"handler":"c"}]"#, "`handler`"),
            (r#",{"message":{"body":2},"handler":7},{"message":{"body":3},"handler":"c"}]"#, "a string is expected"),
            (r#",{"message":{"body":2},"handler":"\ud83d"}]"#, "surrogate"),
            (r#",{"message":{"body":"2},"handler":"b"}]"#, "is not JSON"),
            (r#",{"mess"#, "is not JSON"),
            ("", "is not JSON"),
            (",", "is not JSON"),
            (",7]", "an object is expected"),
        ] {
            let Received { messages, cut_off } = read(&Bytes::from(format!("{first}{rest}"))).unwrap();
            assert_eq!((messages.len(), messages[0].undecodable()), (1, None), "{rest}");
            assert!(cut_off.as_ref().is_some_and(|why| why.contains(expected)), "{rest}: {cut_off:?}");
        }
        for page in ["", "<html>", "null", "{}", "[", "[7]", r#"{"error_code":"x"}"#, r#"[{"message":{"body":1}}]"#] {
            assert!(read(&Bytes::from(page)).is_err(), "{page}");
        }
    }
}
