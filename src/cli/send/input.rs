//! Where messages come from: arguments, or JSON lines of a file or of standard input.

use std::{collections::VecDeque, time::Duration};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader, stdin},
};

use super::{SendArgs, unreadable};
use crate::{
    cli::failure::Failure,
    limits,
    message::{Attributes, Body, Message},
};

/// A line, or an argument.
pub(super) struct Line {
    /// Its number, counted from 1.
    pub(super) number: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// The message, or why there is none.
    pub(super) message: Result<Message, String>,
}

/// The source of the messages, with what every message gets.
pub(super) struct Input {
    source: Source,
    common: Message,
    number: u64,
    size: Option<u64>,
    ended: bool,
}

enum Source {
    Arguments { bodies: VecDeque<String>, text: bool },
    Lines { reader: Box<dyn AsyncBufRead + Unpin + Send>, name: String },
}

impl Input {
    /// Opens the source that the arguments name.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) async fn open(args: &SendArgs) -> Result<Self, Failure> {
        let mut common = Message::new(Body::trusted("null".into())).delay(args.delay.get());
        common.tags.clone_from(&args.tags);
        common.attributes = args.attributes.iter().cloned().collect();
        let mut size = None;
        let source = match (&args.file, args.bodies.as_slice()) {
            (Some(path), _) => {
                let name = path.display().to_string();
                let file = File::open(path).await.map_err(|error| unreadable(&name, &error))?;
                size = file.metadata().await.ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
                Source::Lines { reader: Box::new(BufReader::new(file)), name }
            }
            (None, [dash]) if dash == "-" => {
                Source::Lines { reader: Box::new(BufReader::new(stdin())), name: "standard input".to_owned() }
            }
            (None, bodies) => Source::Arguments { bodies: bodies.iter().cloned().collect(), text: args.text },
        };
        Ok(Self { source, common, number: 0, size, ended: false })
    }

    /// The size of the source in bytes, where it is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether the last line was given out.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next line; empty ones are passed over.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            self.number += 1;
            let (bytes, message) = match &mut self.source {
                Source::Arguments { bodies, text } => match bodies.pop_front() {
                    Some(body) => (body.len(), argument(&body, *text, &self.common)),
                    None => break,
                },
                Source::Lines { reader, name } => {
                    let mut line = Vec::new();
                    match reader.read_until(b'\n', &mut line).await.map_err(|error| unreadable(name, &error))? {
                        0 => break,
                        bytes if line.iter().all(u8::is_ascii_whitespace) => (bytes, Err(String::new())),
                        bytes => (bytes, parse(&line, &self.common)),
                    }
                }
            };
            if matches!(&message, Err(reason) if reason.is_empty()) {
                continue;
            }
            let message = message.and_then(|message| check(&message).map(|()| message));
            return Ok(Some(Line { number: self.number, bytes: bytes as u64, message }));
        }
        self.ended = true;
        Ok(None)
    }
}

fn argument(body: &str, text: bool, common: &Message) -> Result<Message, String> {
    let body = match Body::raw(body.to_owned()) {
        Ok(body) if !text => body,
        _ => Body::json(body).map_err(|error| error.to_string())?,
    };
    Ok(Message { body, ..common.clone() })
}

/// A line of JSON; other fields are left alone, so that what `receive` prints can be sent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(default)]
    attributes: Option<Attributes>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    delay_time: Option<f64>,
}

/// Reads a line; what it does not say is taken from `common`.
fn parse(line: &[u8], common: &Message) -> Result<Message, String> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| format!("is not a message: {error}"))?;
    let body = fields.body.ok_or("has no `body`: write {\"body\": …}")?;
    let mut message =
        Message { body: Body::raw(body.get().to_owned()).map_err(|error| error.to_string())?, ..common.clone() };
    message.attributes.extend(fields.attributes.unwrap_or_default());
    if let Some(tags) = fields.tags {
        message.tags = tags;
    }
    if let Some(millis) = fields.delay_time {
        message.delay = Duration::try_from_secs_f64(millis / 1000.0)
            .map_err(|_| format!("`delay_time` is {millis}: 0 to 604800000 ms are allowed"))?;
    }
    Ok(message)
}

/// The service's limits, so that a line that breaks one costs no other its request.
fn check(message: &Message) -> Result<(), String> {
    limits::total_bytes(message.body.len())
        .and_then(|()| limits::labels(&message.tags))
        .and_then(|()| limits::delay(message.delay))
        .map_err(|error| error.to_string())
}

/// Reads `--attribute NAME=VALUE`.
pub(super) fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_argument_is_json_where_it_can_be() {
        let common = Message::text("").tag("red");
        let body = |text: &str, forced| argument(text, forced, &common).unwrap().body.as_str().to_owned();
        assert_eq!(body("{\"a\": 1}", false), "{\"a\": 1}");
        assert_eq!(body("hello", false), "\"hello\"");
        assert_eq!(body("12", true), "\"12\"");
        assert_eq!(argument("1", false, &common).unwrap().tags, ["red"]);
    }

    #[test]
    fn a_line_overrides_what_is_common() {
        let common = Message::text("").tag("red").attribute("a", 1).attribute("b", 1);
        let line =
            br#"{"body": [1, 2], "attributes": {"b": 2}, "tags": ["blue"], "delay_time": 6000.9, "handler": "x"}"#;
        let message = parse(line, &common).unwrap();
        assert_eq!(message.body.as_str(), "[1, 2]");
        assert_eq!(Value::Object(message.attributes), serde_json::json!({"a": 1, "b": 2}));
        assert_eq!((message.tags, message.delay.as_millis()), (vec!["blue".to_owned()], 6000));
    }

    #[test]
    fn a_bad_line_says_why() {
        let common = Message::text("");
        let reason = |line: &str| parse(line.as_bytes(), &common).and_then(|message| check(&message)).unwrap_err();
        assert!(reason("{").starts_with("is not a message: EOF"));
        assert_eq!(reason("{}"), "has no `body`: write {\"body\": …}");
        assert!(reason(r#"{"body": 1, "delay_time": -1}"#).contains("`delay_time` is -1"));
        assert!(reason(r#"{"body": 1, "tags": ["a b"]}"#).contains("label is \"a b\""));
        assert!(reason(r#"{"body": 1, "delay_time": 604800001}"#).contains("604800000 ms (7 days) are allowed"));
    }
}
