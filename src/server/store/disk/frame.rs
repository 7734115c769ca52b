//! The bytes of the log: a *frame* for each commit, in it a *run* for messages of one stream that follow each other, and
//! every other record as JSON. Pure.
//!
//! | frame | bytes | | run | bytes |
//! |---|---|---|---|---|
//! | mark | 4 | | stream | 4 |
//! | length of what is in it | 4 | | place of its first message | 8 |
//! | its number, from 1 without gaps | 8 | | how many messages | 4 |
//! | checksum of length, number and content | 4 | | checksum of the run's other bytes | 4 |
//! | items: kind (1), length (4), content | | | messages: time (8), size of the body (4), of labels (4), of JSON (4), both | |
//!
//! A dead letter that says why it is one has the highest bit of the size of its labels set; in front of its labels stand a length
//! (4) and that many bytes of JSON, which the size covers. Version 0.1.0 wrote no such messages.
//!
//! Numbers are little-endian. Checksums are CRC-32 and begin with the log's own number: bytes of another log, or of a
//! message that looks like a frame, do not pass.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::position::{Position, Run};
use crate::{
    message::DeadLetterInfo,
    server::store::{Record, Stored, StreamNo},
};

/// What a frame begins with.
pub(super) const MARK: [u8; 4] = *b"DMSf";
/// Bytes of a frame before its items.
pub(super) const FRAME_HEAD: usize = 20;
/// Bytes of a run before its messages.
pub(super) const RUN_HEAD: usize = 20;
/// Bytes of an item before its content.
const ITEM_HEAD: usize = 5;
/// Bytes of a message before its labels.
pub(super) const MESSAGE_HEAD: usize = 20;
/// A run is ended at so many bytes: who wants one message of it reads all of it.
pub(super) const RUN_BYTES: usize = 48 * 1024;

/// Set in the length of a message's labels where it says why it is a dead letter.
const HAS_INFO: u32 = 1 << 31;
/// Bytes of that before its text.
const INFO_HEAD: u32 = 4;

const RECORD: u8 = 0;
const APPENDED: u8 = 1;
const PARKED: u8 = 2;
const MOVED: u8 = 3;

/// What the index has to know of a commit, in its order.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Messages entered the end of a stream; the last of them at this time.
    Appended(Run, i64),
    /// A message waits in a lot until this time.
    Parked(Run, i64),
    /// A run is here now, if it is still anywhere.
    Moved(Run),
    /// Anything but messages.
    Other(Record),
}

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its content does not match its checksum")]
pub(super) struct Corrupt;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the items.
    pub(super) length: usize,
    /// The frame's number.
    pub(super) number: u64,
    checksum: u32,
}

impl Head {
    /// Reads a head; `None` where no frame begins.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.get(..FRAME_HEAD)?.strip_prefix(&MARK)?;
        Some(Self { length: bytes.get_u32_le() as usize, number: bytes.get_u64_le(), checksum: bytes.get_u32_le() })
    }

    /// Whether these are the items of this frame of this log.
    pub(super) fn fits(&self, log: u32, items: &[u8]) -> bool {
        items.len() == self.length && self.checksum == checksum_of_frame(log, self.number, items)
    }
}

fn checksum_of_frame(log: u32, number: u64, items: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&(items.len() as u64).to_le_bytes());
    sum.update(&number.to_le_bytes());
    sum.update(items);
    sum.finalize()
}

/// A frame being written. Where its parts are is known when it is known where the frame is.
#[derive(Debug)]
pub(super) struct Frame {
    log: u32,
    bytes: BytesMut,
    changes: Vec<Change>,
    /// Whether it has messages.
    pub(super) has_messages: bool,
}

impl Frame {
    /// A frame of these records.
    pub(super) fn of(log: u32, records: &[Record]) -> Result<Self, serde_json::Error> {
        let mut frame = Self::empty(log, records.iter().map(size).sum());
        let mut records = records;
        while let Some(first) = records.first() {
            let (taken, rest) = records.split_at(match first {
                Record::Appended(stream, message) => length_of_run(*stream, message.seq, records),
                _ => 1,
            });
            frame.add(first, taken)?;
            records = rest;
        }
        Ok(frame)
    }

    /// A frame without anything, for about so many bytes.
    pub(super) fn empty(log: u32, size: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(FRAME_HEAD + size);
        bytes.put_bytes(0, FRAME_HEAD);
        Self { log, bytes, changes: Vec::new(), has_messages: false }
    }

    fn add(&mut self, first: &Record, records: &[Record]) -> Result<(), serde_json::Error> {
        match first {
            Record::Appended(stream, message) => {
                let messages = records.iter().filter_map(message_of);
                let run = self.add_run(APPENDED, *stream, message.seq, messages)?;
                let newest = records.iter().rev().find_map(message_of).map_or(0, |last| last.entered_ms);
                self.changes.push(Change::Appended(run, newest));
            }
            Record::Parked(lot, message) => {
                let run = self.add_run(PARKED, *lot, message.seq, std::iter::once(message))?;
                self.changes.push(Change::Parked(run, message.entered_ms));
            }
            other => {
                let json = serde_json::to_vec(other)?;
                self.begin_item(RECORD, json.len());
                self.bytes.put_slice(&json);
                self.changes.push(Change::Other(other.clone()));
            }
        }
        Ok(())
    }

    fn begin_item(&mut self, kind: u8, length: usize) {
        self.bytes.put_u8(kind);
        self.bytes.put_u32_le(four_bytes(length));
    }

    fn add_run<'a>(
        &mut self,
        kind: u8,
        stream: StreamNo,
        first: u64,
        messages: impl Iterator<Item = &'a Arc<Stored>>,
    ) -> Result<Run, serde_json::Error> {
        self.has_messages = true;
        self.begin_item(kind, 0);
        let begin = self.bytes.len();
        self.bytes.put_bytes(0, RUN_HEAD);
        let mut count = 0;
        for message in messages {
            put_message(&mut self.bytes, message)?;
            count += 1;
        }
        let length = self.bytes.len() - begin;
        self.bytes[begin - 4..begin].copy_from_slice(&four_bytes(length).to_le_bytes());
        let mut head = &mut self.bytes[begin..begin + RUN_HEAD - 4];
        head.put_u32_le(stream.0);
        head.put_u64_le(first);
        head.put_u32_le(count);
        let sum = checksum_of_run(self.log, &self.bytes[begin..]);
        self.bytes[begin + RUN_HEAD - 4..begin + RUN_HEAD].copy_from_slice(&sum.to_le_bytes());
        Ok(Run { stream, first, count, at: Position { segment: 0, offset: begin as u64 }, bytes: four_bytes(length) })
    }

    /// Adds a run that was written before, as it is.
    pub(super) fn add_moved(&mut self, run: Run, bytes: &[u8]) {
        self.has_messages = true;
        self.begin_item(MOVED, bytes.len());
        let at = Position { segment: 0, offset: self.bytes.len() as u64 };
        self.bytes.put_slice(bytes);
        self.changes.push(Change::Moved(Run { at, ..run }));
    }

    /// How long the frame is so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The bytes to write as frame `number`.
    pub(super) fn finish(&mut self, number: u64) -> &[u8] {
        let length = self.bytes.len() - FRAME_HEAD;
        let checksum = checksum_of_frame(self.log, number, &self.bytes[FRAME_HEAD..]);
        let mut head = &mut self.bytes[..FRAME_HEAD];
        head.put_slice(&MARK);
        head.put_u32_le(four_bytes(length));
        head.put_u64_le(number);
        head.put_u32_le(checksum);
        &self.bytes
    }

    /// What the index has to know, now that the frame begins at `at`.
    pub(super) fn into_changes(self, at: Position) -> Vec<Change> {
        let mut changes = self.changes;
        for change in &mut changes {
            if let Change::Appended(run, _) | Change::Parked(run, _) | Change::Moved(run) = change {
                run.at = Position { segment: at.segment, offset: at.offset + run.at.offset };
            }
        }
        changes
    }
}

/// Reads the items of a frame that begins at `at`.
pub(super) fn changes(log: u32, mut items: &[u8], at: Position) -> Result<Vec<Change>, Corrupt> {
    let length = items.len();
    let mut changes = Vec::new();
    while items.has_remaining() {
        let kind = items.try_get_u8().map_err(|_| Corrupt)?;
        let size = items.try_get_u32_le().map_err(|_| Corrupt)? as usize;
        let begin = at.offset + (FRAME_HEAD + length - items.len()) as u64;
        let (content, rest) = items.split_at_checked(size).ok_or(Corrupt)?;
        items = rest;
        let run = |content| run_at(log, content, Position { segment: at.segment, offset: begin });
        changes.push(match kind {
            RECORD => Change::Other(serde_json::from_slice(content).map_err(|_| Corrupt)?),
            APPENDED => {
                let run = run(content)?;
                Change::Appended(run, last_time(log, &run, content)?)
            }
            PARKED => {
                let run = run(content)?;
                Change::Parked(run, last_time(log, &run, content)?)
            }
            MOVED => Change::Moved(run(content)?),
            _ => return Err(Corrupt),
        });
    }
    Ok(changes)
}

fn last_time(log: u32, run: &Run, content: &[u8]) -> Result<i64, Corrupt> {
    let messages = messages(log, run, &Bytes::copy_from_slice(content))?;
    messages.last().map(|message| message.entered_ms).ok_or(Corrupt)
}

/// The run whose bytes these are, at a place in the log.
fn run_at(log: u32, content: &[u8], at: Position) -> Result<Run, Corrupt> {
    let mut head = content.get(..RUN_HEAD).ok_or(Corrupt)?;
    let (stream, first, count) = (StreamNo(head.get_u32_le()), head.get_u64_le(), head.get_u32_le());
    if head.get_u32_le() != checksum_of_run(log, content) {
        return Err(Corrupt);
    }
    Ok(Run { stream, first, count, at, bytes: four_bytes(content.len()) })
}

/// The messages of a run, if these are its bytes. Their JSON is a part of `content`.
pub(super) fn messages(log: u32, run: &Run, content: &Bytes) -> Result<Vec<Arc<Stored>>, Corrupt> {
    if run_at(log, content, run.at)? != *run {
        return Err(Corrupt);
    }
    let mut rest = content.slice(RUN_HEAD..);
    (run.first..run.first + u64::from(run.count)).map(|seq| Ok(Arc::new(take_message(&mut rest, seq)?))).collect()
}

/// When the message entered whose head this is, and the bytes from there to the next message.
pub(super) fn entry_time(mut head: &[u8]) -> Result<(i64, u64), Corrupt> {
    if head.len() < MESSAGE_HEAD {
        return Err(Corrupt);
    }
    let (entered_ms, _body) = (head.get_i64_le(), head.get_u32_le());
    let (labels, json) = (u64::from(head.get_u32_le() & !HAS_INFO), u64::from(head.get_u32_le()));
    Ok((entered_ms, MESSAGE_HEAD as u64 + labels + json))
}

fn put_message(bytes: &mut BytesMut, message: &Stored) -> Result<(), serde_json::Error> {
    let info = message.dead_letter.as_ref().map(serde_json::to_vec).transpose()?;
    bytes.put_i64_le(message.entered_ms);
    bytes.put_u32_le(four_bytes(message.body_bytes));
    let labels = four_bytes(labels_length(message));
    bytes.put_u32_le(info.as_ref().map_or(labels, |info| (labels + INFO_HEAD + four_bytes(info.len())) | HAS_INFO));
    bytes.put_u32_le(four_bytes(message.json.len()));
    if let Some(info) = info {
        bytes.put_u32_le(four_bytes(info.len()));
        bytes.put_slice(&info);
    }
    for (place, label) in message.tags.iter().enumerate() {
        if place > 0 {
            bytes.put_u8(b',');
        }
        bytes.put_slice(label.as_bytes());
    }
    bytes.put_slice(&message.json);
    Ok(())
}

fn take_message(bytes: &mut Bytes, seq: u64) -> Result<Stored, Corrupt> {
    if bytes.len() < MESSAGE_HEAD {
        return Err(Corrupt);
    }
    let (entered_ms, body_bytes) = (bytes.get_i64_le(), bytes.get_u32_le() as usize);
    let (labels, json) = (bytes.get_u32_le(), bytes.get_u32_le() as usize);
    let has_info = labels & HAS_INFO > 0;
    let mut labels = take(bytes, (labels & !HAS_INFO) as usize)?;
    let dead_letter: Option<DeadLetterInfo> = if has_info {
        let length = labels.try_get_u32_le().map_err(|_| Corrupt)? as usize;
        Some(serde_json::from_slice(&take(&mut labels, length)?).map_err(|_| Corrupt)?)
    } else {
        None
    };
    let tags = match std::str::from_utf8(&labels).map_err(|_| Corrupt)? {
        "" => Arc::from([]),
        labels => labels.split(',').map(str::to_owned).collect(),
    };
    Ok(Stored { seq, entered_ms, json: take(bytes, json)?, body_bytes, tags, dead_letter: dead_letter.map(Arc::new) })
}

/// The next bytes, if there are so many.
fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, Corrupt> {
    if bytes.len() < length { Err(Corrupt) } else { Ok(bytes.split_to(length)) }
}

/// CRC-32 of a run less the place of the checksum itself.
fn checksum_of_run(log: u32, content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&content[..RUN_HEAD - 4]);
    sum.update(&content[RUN_HEAD..]);
    sum.finalize()
}

/// How many of the records are one run: appended to this stream, one after the other.
fn length_of_run(stream: StreamNo, first: u64, records: &[Record]) -> usize {
    let mut bytes = 0;
    let goes_on = |(place, record): &(u64, &Record)| match record {
        Record::Appended(of, message) if *of == stream && message.seq == *place => {
            bytes += message.json.len();
            bytes <= RUN_BYTES || *place == first
        }
        _ => false,
    };
    (first..).zip(records).take_while(goes_on).count()
}

fn message_of(record: &Record) -> Option<&Arc<Stored>> {
    match record {
        Record::Appended(_, message) | Record::Parked(_, message) => Some(message),
        _ => None,
    }
}

fn labels_length(message: &Stored) -> usize {
    message.tags.iter().map(String::len).sum::<usize>() + message.tags.len().saturating_sub(1)
}

/// Roughly what a record takes.
fn size(record: &Record) -> usize {
    message_of(record).map_or(256, |message| ITEM_HEAD + RUN_HEAD + MESSAGE_HEAD + message.json.len() + 64)
}

/// No commit is larger: the broker's are of some megabytes.
fn four_bytes(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
