//! Where messages come from: arguments, or JSON lines of a file or of standard input.

use std::{
    collections::VecDeque,
    io::{self, SeekFrom},
    path::Path,
};

use serde_json::value::{RawValue, to_raw_value};
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, AsyncSeekExt, BufReader, stdin},
};

use crate::{cli::support::failure::Failure, message_json::line};
use dms_protocol::{
    internal::text,
    message::{Body, Message},
};

/// The longest line that is read, in bytes; a longer one cannot be a message. The largest message has half a MiB, and JSON may
/// be written with blanks.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// A line, or an argument.
pub(crate) struct InputLine {
    /// Its number, counted from 1.
    pub(super) number: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    /// The message, or why there is none.
    pub(super) message: Result<Message, String>,
    /// Whether it stays, because it is the original of an edited dead letter.
    pub(super) is_left: bool,
    /// Its text, where texts are kept and it is not too long to be held.
    pub(super) text: Option<Vec<u8>>,
}

/// The source of the messages, with what every message gets.
pub(crate) struct Input {
    source: InputSource,
    common: Message,
    /// The number of lines read so far.
    number: u64,
    /// The bytes read so far, from the start of the file.
    offset: u64,
    /// The size of the file. `None` for standard input.
    size: Option<u64>,
    /// Whether the lines are needed as text, to write refused ones into a file.
    keeps_texts: bool,
    keeps_ids: bool,
    /// Whether originals of dead letters that were edited and sent again are left out.
    leaves_originals: bool,
    /// The number of such originals so far.
    originals: u64,
}

enum InputSource {
    Arguments { bodies: VecDeque<String>, text: bool },
    Lines { reader: Box<dyn AsyncBufRead + Unpin + Send>, name: String },
}

impl Input {
    fn new(source: InputSource, common: Message) -> Self {
        Self {
            source,
            common,
            number: 0,
            offset: 0,
            size: None,
            keeps_texts: false,
            keeps_ids: false,
            leaves_originals: false,
            originals: 0,
        }
    }

    /// Bodies from the command line: JSON where they are JSON and not to be `text`.
    pub(crate) fn arguments(bodies: &[String], text: bool, common: Message) -> Self {
        let source = InputSource::Arguments { bodies: bodies.iter().cloned().collect(), text };
        Self::new(source, common)
    }

    /// Makes each message a copy of the message whose `id` its line has.
    pub(crate) fn keep_ids(&mut self) {
        self.keeps_ids = true;
    }

    /// Leaves the originals of dead letters that were edited and sent again.
    pub(crate) fn leave_originals(&mut self) {
        self.leaves_originals = true;
    }

    /// The number of originals that were left.
    pub(crate) fn originals(&self) -> u64 {
        self.originals
    }

    /// Keeps the text of each line with its message.
    pub(crate) fn keep_texts(&mut self) {
        self.keeps_texts = true;
    }

    /// JSON lines from standard input.
    pub(crate) fn standard(common: Message) -> Self {
        Self::lines(BufReader::with_capacity(CHUNK, stdin()), "standard input", common)
    }

    /// JSON lines of a file, from `offset` on, where line `line` has ended.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) async fn file(path: &Path, common: Message, line: u64, offset: u64) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let open = async {
            let mut file = File::open(path).await?;
            if offset > 0 {
                file.seek(SeekFrom::Start(offset)).await?;
            }
            let size = file.metadata().await.ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
            Ok((file, size))
        };
        let (file, size) = open.await.map_err(|error| Failure::unreadable(&name, &error))?;
        let lines = Self::lines(BufReader::with_capacity(CHUNK, file), &name, common);
        Ok(Self { number: line, offset, size, ..lines })
    }

    fn lines(reader: impl AsyncBufRead + Unpin + Send + 'static, name: &str, common: Message) -> Self {
        let source = InputSource::Lines { reader: Box::new(reader), name: name.to_owned() };
        Self::new(source, common)
    }

    /// The size of the source in bytes, where it is known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next line; empty ones are passed over.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<InputLine>, Failure> {
        loop {
            let (bytes, message, text) = match &mut self.source {
                InputSource::Arguments { bodies, text } => match bodies.pop_front() {
                    Some(body) => (body.len() as u64, Some(argument(&body, *text, &self.common)), None),
                    None => return Ok(None),
                },
                InputSource::Lines { reader, name } => {
                    let (bytes, mut text) =
                        read_line(reader).await.map_err(|error| Failure::unreadable(&*name, &error))?;
                    if self.offset == 0
                        && let Some(first) = &mut text
                    {
                        *first = beginning(first).map_err(|error| Failure::unreadable(&*name, &error))?;
                    }
                    match (bytes, text) {
                        (0, _) => return Ok(None),
                        (bytes, Some(text)) if text.trim_ascii().is_empty() => (bytes, None, None),
                        (bytes, Some(text)) => {
                            let message = match self.keeps_ids {
                                true => line::parse_copy(&text, &self.common),
                                false => line::parse(&text, &self.common),
                            };
                            (bytes, Some(message), Some(text))
                        }
                        (bytes, None) => (bytes, Some(Err(too_long(bytes))), None),
                    }
                }
            };
            self.number += 1;
            self.offset += bytes;
            if let Some(message) = message {
                let is_left = self.leaves_originals && text.as_deref().is_some_and(line::is_edited_original);
                self.originals += u64::from(is_left);
                let text = text.filter(|_| self.keeps_texts);
                return Ok(Some(InputLine { number: self.number, bytes, end: self.offset, message, is_left, text }));
            }
        }
    }
}

/// The next line with its end, and its size; without its text where it is too long to be held.
async fn read_line(reader: &mut (dyn AsyncBufRead + Unpin + Send)) -> io::Result<(u64, Option<Vec<u8>>)> {
    let mut text = Vec::new();
    let mut size = 0;
    loop {
        let chunk = reader.fill_buf().await?;
        let end = chunk.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(chunk.len());
        if size + taken <= MAX_LINE {
            text.extend_from_slice(&chunk[..taken]);
        } else {
            text = Vec::new();
        }
        reader.consume(taken);
        size += taken;
        if end.is_some() || taken == 0 {
            return Ok((size as u64, (size <= MAX_LINE).then_some(text)));
        }
    }
}

/// The first line without a byte order mark.
fn beginning(line: &[u8]) -> io::Result<Vec<u8>> {
    Ok(text::without_mark(line)?.to_vec())
}

fn too_long(bytes: u64) -> String {
    format!("has {bytes} bytes: a line may have {MAX_LINE}, and a message {}", dms_protocol::limits::MAX_BYTES)
}

fn argument(body: &str, text: bool, common: &Message) -> Result<Message, String> {
    let body = match Body::raw(body.to_owned()) {
        Ok(body) if !text => body,
        _ => Body::json(body).map_err(|error| error.to_string())?,
    };
    Ok(Message { body, ..common.clone() })
}

/// Reads `NAME=VALUE`; a value that is JSON is JSON.
pub(crate) fn attribute(text: &str) -> Result<(String, Box<RawValue>), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let json = match serde_json::from_str(value) {
        Ok(json) => json,
        Err(_) => to_raw_value(value).map_err(|error| error.to_string())?,
    };
    Ok((name.to_owned(), json))
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

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over_and_not_held() {
        let lines = format!("1\n{}\n\n3", "x".repeat(MAX_LINE));
        let mut reader = BufReader::with_capacity(1000, lines.as_bytes());
        let mut read = Vec::new();
        loop {
            match read_line(&mut reader).await.unwrap() {
                (0, _) => break,
                (size, text) => read.push((size, text.map(|text| text.len()))),
            }
        }
        assert_eq!(read, [(2, Some(2)), (MAX_LINE as u64 + 1, None), (1, Some(1)), (1, Some(1))]);
    }
}
