//! Reading the body of a send, and its checks (API reference 5.3.1).
//!
//! A message is delivered as it was sent, in an answer with others. A message that strict JSON parsers cannot read would make
//! the whole answer unreadable for its consumers, again at each redelivery. So it is refused here.

use std::{borrow::Cow, time::Duration};

use bytes::{BufMut, Bytes};

use crate::{
    broker::{Deduplication, NewMessage},
    handlers::attributes::{self, NO_ATTRIBUTES},
    http::{codes, error::ApiError, json},
    shared_buffer::SharedBuffer,
};
use dms_protocol::{
    internal::json::{Fault, Scan, excerpt},
    limits,
};

/// A checked send.
#[derive(Debug)]
pub(crate) struct SendRequest {
    /// The messages to store.
    pub(crate) messages: Vec<NewMessage>,
    /// Whether the caller asks for the ids of the messages.
    pub(crate) return_id: bool,
}

/// The body of 5.3.1. V1.0 spells two of the fields differently. Both spellings are accepted in both versions.
#[derive(Debug, PartialEq)]
struct ParsedSend<'a> {
    messages: Vec<Entry<'a>>,
    return_id: bool,
}

#[derive(Debug, PartialEq)]
struct Entry<'a> {
    body: &'a [u8],
    attributes: Cow<'a, [u8]>,
    tags: Vec<Cow<'a, str>>,
    delay: Option<Delay<'a>>,
    deduplication: Option<Box<DeduplicationText<'a>>>,
}

/// The JSON of the deduplication key and of its window. Nearly no message has them, so they are in a box.
#[derive(Debug, Default, PartialEq)]
struct DeduplicationText<'a> {
    key: Option<&'a [u8]>,
    window_ms: Option<&'a [u8]>,
}

/// A `delay_time`: its spelling, and the number as written.
#[derive(Debug, PartialEq)]
struct Delay<'a> {
    name: &'static str,
    millis: &'a str,
}

impl SendRequest {
    /// Reads and checks the body of a send, whose messages may be delayed for `longest`. Without `extensions`, deduplication keys are
    /// passed over as any unknown member is.
    ///
    /// # Errors
    /// A documented code with the place of the first mistake.
    pub(crate) fn read(body: &[u8], extensions: bool, longest: Duration) -> Result<Self, ApiError> {
        let ParsedSend { messages, return_id } = json::read_messages(body, request)?;
        check_sizes(&messages)?;
        let bytes = messages.iter().map(|entry| size(entry.body, &entry.attributes, &entry.tags)).sum();
        let mut buffer = SharedBuffer::new(messages.len(), bytes);
        let messages = messages.into_iter().enumerate();
        let messages = messages.map(|(index, entry)| message(index, entry, extensions, longest, &mut buffer));
        Ok(Self { messages: messages.collect::<Result<_, _>>()?, return_id })
    }
}

fn request<'a>(scan: &mut Scan<'a>) -> Result<ParsedSend<'a>, Fault> {
    let start = scan.start();
    let (mut messages, mut return_id) = (None, None);
    scan.members(|name, scan| match &**name {
        b"messages" => name.once(&mut messages, scan.items(entry)?),
        b"return_id" | b"returnId" => name.once(&mut return_id, lenient_bool(scan)?),
        _ => scan.value().map(drop),
    })?;
    let messages = messages.ok_or_else(|| Fault::missing("messages", start))?;
    Ok(ParsedSend { messages, return_id: return_id.unwrap_or(false) })
}

fn entry<'a>(scan: &mut Scan<'a>) -> Result<Entry<'a>, Fault> {
    let start = scan.start();
    let (mut body, mut attributes, mut tags, mut delay) = (None, None, None, None);
    let mut deduplication = None::<Box<DeduplicationText<'a>>>;
    scan.members(|name, scan| match &**name {
        b"body" => name.once(&mut body, scan.portable(limits::MAX_NESTING, 0)?),
        b"attributes" => name.once(&mut attributes, scan.nullable(attributes::read)?),
        b"tags" => name.once(&mut tags, scan.nullable(|scan| scan.items(Scan::string))?),
        b"delay_time" => name.once(&mut delay, delay_time("delay_time", scan)?),
        b"delayTime" => name.once(&mut delay, delay_time("delayTime", scan)?),
        b"deduplication_key" => name.once(&mut deduplication.get_or_insert_default().key, scan.value()?),
        b"deduplication_window" => name.once(&mut deduplication.get_or_insert_default().window_ms, scan.value()?),
        _ => scan.value().map(drop),
    })?;
    Ok(Entry {
        body: body.ok_or_else(|| Fault::missing("body", start))?,
        attributes: attributes.flatten().unwrap_or(Cow::Borrowed(NO_ATTRIBUTES)),
        tags: tags.flatten().unwrap_or_default(),
        delay: delay.flatten(),
        deduplication,
    })
}

fn delay_time<'a>(name: &'static str, scan: &mut Scan<'a>) -> Result<Option<Delay<'a>>, Fault> {
    scan.nullable(|scan| Ok(Delay { name, millis: scan.number()? }))
}

/// A boolean, or one of the strings that the V1.0 example sends in its place (`"returnId": "true"`).
fn lenient_bool(scan: &mut Scan<'_>) -> Result<bool, Fault> {
    let start = scan.start();
    let value = match scan.first() {
        Some(b'"') => scan.string()?.to_ascii_lowercase().into_bytes().into(),
        _ => Cow::Borrowed(scan.value()?),
    };
    match &*value {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(Fault::shape("true or false", start)),
    }
}

fn check_sizes(messages: &[Entry<'_>]) -> Result<(), ApiError> {
    limits::message_count(messages.len())
        .map_err(|error| codes::REQUEST_FORMAT.at(error.of("The number of messages")))?;
    let size: usize = messages.iter().map(|entry| entry.body.len()).sum();
    let most = limits::MAX_BYTES;
    if size <= most {
        return Ok(());
    }
    let mut text = format!("The message size is {size}, larger than the size limit {most}.");
    // The limit is for the sum, but a single message may exceed it.
    if let Some(index) = messages.iter().position(|entry| entry.body.len() > most && messages.len() > 1) {
        text.push_str(&format!(" messages[{index}].body alone is larger."));
    }
    Err(codes::MESSAGE_SIZE.saying(text))
}

fn message(
    index: usize,
    entry: Entry<'_>,
    extensions: bool,
    longest: Duration,
    buffer: &mut SharedBuffer,
) -> Result<NewMessage, ApiError> {
    check_labels(index, &entry.tags)?;
    let delay = entry.delay.map_or(Ok(Duration::ZERO), |delay| delay.read(index, longest))?;
    let deduplication = entry.deduplication.filter(|_| extensions);
    Ok(NewMessage {
        deduplication: deduplication.map_or(Ok(None), |text| text.read(index))?,
        origin: attributes::origin(&entry.attributes),
        json: encode(buffer, entry.body, &entry.attributes, &entry.tags),
        body_bytes: entry.body.len(),
        tags: entry.tags.into_iter().map(Cow::into_owned).collect(),
        delay,
    })
}

fn check_labels(index: usize, tags: &[Cow<'_, str>]) -> Result<(), ApiError> {
    let Err(error) = limits::labels(tags) else { return Ok(()) };
    let place = match tags.iter().position(|tag| limits::labels(&[tag]).is_err()) {
        Some(label) if tags.len() <= limits::MAX_LABELS => format!("messages[{index}].tags[{label}]"),
        _ => format!("The {} of messages[{index}].tags", error.what),
    };
    Err(codes::LABEL.at(error.of(&place)))
}

impl Delay<'_> {
    /// Milliseconds, truncated to whole ones (5.3.1).
    fn read(&self, index: usize, longest: Duration) -> Result<Duration, ApiError> {
        let millis = self.millis.parse::<f64>().unwrap_or(f64::NAN);
        // Adding zero turns minus zero into zero.
        let delay = Duration::try_from_secs_f64((millis.trunc() + 0.0) / 1000.0).ok();
        delay.filter(|delay| *delay <= longest).ok_or_else(|| {
            let (name, shown) = (self.name, excerpt(self.millis.as_bytes()));
            let (ms, days) = (longest.as_millis(), longest.as_secs() / 86_400);
            codes::REQUEST_FORMAT
                .at(format!("messages[{index}].{name} is {shown}: 0 to {ms} ms ({days} days) are allowed."))
        })
    }
}

impl DeduplicationText<'_> {
    /// The key and its window. `null` counts as absent.
    fn read(&self, index: usize) -> Result<Option<Box<Deduplication>>, ApiError> {
        let key = member::<String>(index, "deduplication_key", self.key, "a string is expected.")?;
        let millis = "milliseconds are expected, a number from 1000 to 604800000.";
        let window = member::<f64>(index, "deduplication_window", self.window_ms, millis)?;
        // A value that is no time, such as a negative number, counts as shorter than the shortest window.
        let window = window.map(|ms| Duration::try_from_secs_f64(ms.trunc() / 1000.0).unwrap_or_default());
        limits::deduplication(key.as_deref(), window)
            .map_err(|error| codes::REQUEST_FORMAT.at(error.of(format!("The {} of messages[{index}]", error.what))))?;
        let window = window.unwrap_or(limits::DEDUPLICATION_WINDOW);
        Ok(key.map(|key| Box::new(Deduplication::new(&key, window))))
    }
}

fn member<T: serde::de::DeserializeOwned>(
    index: usize,
    name: &str,
    text: Option<&[u8]>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    serde_json::from_slice(text).map_err(|_| {
        let shown = excerpt(text);
        codes::REQUEST_FORMAT.at(format!("messages[{index}].{name} is {shown}: {expected}"))
    })
}

/// The maximum size of the text of [`encode`].
pub(crate) fn size(body: &[u8], attributes: &[u8], tags: &[Cow<'_, str>]) -> usize {
    body.len() + attributes.len() + 40 + tags.len() * 67
}

/// The `message` object of a consume answer, joined from the texts of the request.
pub(crate) fn encode(buffer: &mut SharedBuffer, body: &[u8], attributes: &[u8], tags: &[Cow<'_, str>]) -> Bytes {
    buffer.put(size(body, attributes, tags), |text| {
        text.put_slice(br#"{"body":"#);
        text.put_slice(body);
        text.put_slice(br#","attributes":"#);
        text.put_slice(attributes);
        if !tags.is_empty() {
            text.put_slice(br#","tags":["#);
            for (at, tag) in tags.iter().enumerate() {
                // Labels are words, so they need no escapes.
                text.put_slice(if at == 0 { b"\"" } else { b",\"" });
                text.put_slice(tag.as_bytes());
                text.put_slice(b"\"");
            }
            text.put_slice(b"]");
        }
        text.put_slice(b"}");
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> ParsedSend<'_> {
        json::read_messages(text.as_bytes(), request).unwrap()
    }

    fn entry(body: &str) -> Entry<'_> {
        Entry {
            body: body.as_bytes(),
            attributes: Cow::Borrowed(b"{}"),
            tags: Vec::new(),
            delay: None,
            deduplication: None,
        }
    }

    #[test]
    fn both_versions_are_read_and_what_is_unknown_is_passed_over() {
        let full = Entry {
            attributes: Cow::Borrowed(br#"{ "a": 1e3 }"#),
            tags: vec!["t".into()],
            delay: Some(Delay { name: "delay_time", millis: "1.5" }),
            ..entry("\"队\"")
        };
        let v2 = r#" { "return_id" : true, "messages" : [ {"body": [1, "\""] , "new": [{}]},
            {"delay_time":1.5,"body":"队","attributes":{ "a": 1e3 },"tags":["\u0074"]} ], "new": 1e999 } "#;
        assert_eq!(read(v2), ParsedSend { messages: vec![entry("[1, \"\\\"\"]"), full], return_id: true });
        let later = Entry { delay: Some(Delay { name: "delayTime", millis: "60000" }), ..entry("null") };
        let v1 = r#"{"messages":[{"body":null,"attributes":null,"tags":null,"delayTime":60000}],"returnId":"False"}"#;
        assert_eq!(read(v1), ParsedSend { messages: vec![later], return_id: false });
        let escaped = r#"{"\u006dessages":[{"b\u006fdy":1}],"return_id":null}"#;
        assert_eq!(read(escaped), ParsedSend { messages: vec![entry("1")], return_id: false });
    }

    #[test]
    fn delays_are_numbers_of_milliseconds() {
        let delay = |millis| Delay { name: "delay_time", millis }.read(0, limits::MAX_DELAY).ok();
        for (millis, read) in [("0", 0), ("-0", 0), ("-0.9", 0), ("6000.9", 6000), ("1e3", 1000), ("1e-999", 0)] {
            assert_eq!(delay(millis), Some(Duration::from_millis(read)), "{millis}");
        }
        assert_eq!(delay("604800000.999"), Some(limits::MAX_DELAY));
        for bad in ["-1", "604800001", "1e999", "-1e999", "1e300"] {
            assert_eq!(delay(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_deduplication_key_is_checked_with_its_window() {
        let read = |members: &str, extensions| {
            let body = format!(r#"{{"messages":[{{"body":1{members}}}]}}"#);
            SendRequest::read(body.as_bytes(), extensions, limits::MAX_DELAY)
                .map(|mut read| read.messages.remove(0).deduplication)
        };
        let key = |seconds| Some(Box::new(Deduplication::new("k", Duration::from_secs(seconds))));
        assert_eq!(read(r#","deduplication_key":"k""#, true).unwrap(), key(300));
        assert_eq!(read(r#","deduplication_window":1000.9,"deduplication_key":"k""#, true).unwrap(), key(1));
        assert_eq!(read(r#","deduplication_key":null,"deduplication_window":null"#, true).unwrap(), None);
        let bad = [
            r#","deduplication_key":"""#,
            r#","deduplication_key":5"#,
            r#","deduplication_window":1000"#,
            r#","deduplication_key":"k","deduplication_window":"1000""#,
            r#","deduplication_key":"k","deduplication_window":999"#,
            r#","deduplication_key":"k","deduplication_window":-5"#,
            r#","deduplication_key":"k","deduplication_window":604800001"#,
        ];
        for bad in bad {
            assert!(read(bad, true).is_err(), "{bad}");
            assert_eq!(read(bad, false).unwrap(), None, "{bad}");
        }
        let long = format!(r#","deduplication_key":"{}""#, "x".repeat(513));
        let refusal = format!("{:?}", read(&long, true).unwrap_err());
        assert!(refusal.contains("513 bytes long: 1 to 512 bytes are allowed"), "{refusal}");
    }
}
