//! Where messages come from: arguments, or JSON lines of a file or of standard input.

use std::collections::VecDeque;

use serde_json::Value;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader, stdin},
};

use super::{SendArgs, unreadable};
use crate::{
    cli::failure::Failure,
    message::{Body, Message},
    sidecar::line,
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
                    let mut text = Vec::new();
                    match reader.read_until(b'\n', &mut text).await.map_err(|error| unreadable(name, &error))? {
                        0 => break,
                        bytes if text.iter().all(u8::is_ascii_whitespace) => (bytes, Err(String::new())),
                        bytes => (bytes, line::parse(&text, &self.common)),
                    }
                }
            };
            if matches!(&message, Err(reason) if reason.is_empty()) {
                continue;
            }
            let message = message.and_then(|message| line::check(&message).map(|()| message));
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

/// Reads `NAME=VALUE`; a value that is JSON is JSON.
pub(crate) fn attribute(text: &str) -> Result<(String, Value), String> {
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
}
