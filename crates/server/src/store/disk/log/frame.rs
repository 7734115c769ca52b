//! The bytes of the log: a *frame* for each commit. It contains runs of messages (see `run`) and all other records as JSON. Pure.
//!
//! | frame | bytes |
//! |---|---|
//! | mark | 4 |
//! | length of the items | 4 |
//! | number, from 1 without gaps | 8 |
//! | checksum of length, number and items | 4 |
//! | items: kind (1), length (4), content | |
//!
//! Numbers are little-endian. Checksums are CRC-32 and start with the number of the log, so that bytes of another log, or of a
//! message that looks like a frame, do not pass.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::store::{
    Record, StoredMessage, StreamId,
    position::{Position, Run},
    run::{self, Corrupt, MESSAGE_HEADER, RUN_BYTES, RUN_HEADER, four_bytes},
};

/// The first bytes of a frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"DMSf";
/// Bytes of a frame before its items.
pub(crate) const FRAME_HEADER: usize = 20;
/// Bytes of an item before its content.
pub(crate) const ITEM_HEADER: usize = 5;

pub(crate) const RECORD: u8 = 0;
const APPENDED: u8 = 1;
const PARKED: u8 = 2;
const MOVED: u8 = 3;

/// A change of the index that a commit makes. A frame has them in the order of its records.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Messages entered the end of a stream, the last one at this time.
    Appended(Run, i64),
    /// A message entered a delay queue, until this time.
    Delayed(Run, i64),
    /// A run was moved here, if it still exists.
    Moved(Run),
    /// Any record that is not a message.
    Other(Record),
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of the items.
    pub(crate) length: usize,
    /// The number of the frame.
    pub(crate) number: u64,
    pub(crate) checksum: u32,
}

impl FrameHeader {
    /// Reads a header. Returns `None` if no frame begins here.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.get(..FRAME_HEADER)?.strip_prefix(&FRAME_MAGIC)?;
        Some(Self { length: bytes.get_u32_le() as usize, number: bytes.get_u64_le(), checksum: bytes.get_u32_le() })
    }

    /// Whether these are the items of this frame of this log.
    pub(crate) fn fits(&self, log: u32, items: &[u8]) -> bool {
        items.len() == self.length && self.checksum == frame_checksum(log, self.number, items)
    }
}

/// The checksum of a frame.
pub(crate) fn frame_checksum(log: u32, number: u64, items: &[u8]) -> u32 {
    // The number of the log is part of the sum, so that a frame from another directory does not fit. Length and number of the frame
    // are, too, because nothing else protects the header.
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&(items.len() as u64).to_le_bytes());
    sum.update(&number.to_le_bytes());
    sum.update(items);
    sum.finalize()
}

/// A frame that is being built. The positions in its changes are relative until the position of the frame is known.
#[derive(Debug)]
pub(crate) struct Frame {
    log: u32,
    bytes: BytesMut,
    changes: Vec<Change>,
    /// Whether it contains messages.
    pub(crate) has_messages: bool,
    /// Whether some of them are new, and not moved, delayed or dead-lettered ones.
    pub(crate) has_new_messages: bool,
}

impl Frame {
    /// Builds the frame of these records.
    pub(crate) fn of(log: u32, records: &[Record]) -> Result<Self, serde_json::Error> {
        let mut frame = Self::empty(log, records.iter().map(size).sum());
        // Decides whether a full disk refuses the frame.
        frame.has_new_messages = has_new_messages(records);
        let mut records = records;
        while let Some(first) = records.first() {
            // Messages that follow each other in one stream share a run: one index row, one read.
            let (taken, rest) = records.split_at(match first {
                Record::Appended(stream, message) => length_of_run(*stream, message.seq, records),
                _ => 1,
            });
            frame.add(first, taken)?;
            records = rest;
        }
        Ok(frame)
    }

    /// An empty frame with this capacity.
    pub(crate) fn empty(log: u32, size: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(FRAME_HEADER + size);
        // The header is filled in last, because it contains the number and the checksum.
        bytes.put_bytes(0, FRAME_HEADER);
        Self { log, bytes, changes: Vec::new(), has_messages: false, has_new_messages: false }
    }

    fn add(&mut self, first: &Record, records: &[Record]) -> Result<(), serde_json::Error> {
        match first {
            Record::Appended(stream, message) => {
                let messages = records.iter().filter_map(message_of);
                let run = self.add_run(APPENDED, *stream, message.seq, messages)?;
                let newest = records.iter().rev().find_map(message_of).map_or(0, |last| last.entered_ms);
                self.changes.push(Change::Appended(run, newest));
            }
            Record::Delayed(delay_queue, message) => {
                // Each delayed message is a separate run, because the messages of a delay queue leave it one by
                // one, in the order of their due times.
                let run = self.add_run(PARKED, *delay_queue, message.seq, std::iter::once(message))?;
                self.changes.push(Change::Delayed(run, message.entered_ms));
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
        stream: StreamId,
        first: u64,
        messages: impl Iterator<Item = &'a Arc<StoredMessage>>,
    ) -> Result<Run, serde_json::Error> {
        self.has_messages = true;
        // The length is known only once the messages are encoded; it is filled in below.
        self.begin_item(kind, 0);
        let begin = self.bytes.len();
        let count = run::put(&mut self.bytes, self.log, (stream, first), messages)?;
        let length = self.bytes.len() - begin;
        self.bytes[begin - 4..begin].copy_from_slice(&four_bytes(length).to_le_bytes());
        Ok(Run { stream, first, count, at: Position { segment: 0, offset: begin as u64 }, bytes: four_bytes(length) })
    }

    /// Adds a run that was written before, with the same bytes.
    pub(crate) fn add_moved(&mut self, run: Run, bytes: &[u8]) {
        self.has_messages = true;
        self.begin_item(MOVED, bytes.len());
        let at = Position { segment: 0, offset: self.bytes.len() as u64 };
        self.bytes.put_slice(bytes);
        self.changes.push(Change::Moved(Run { at, ..run }));
    }

    /// The length so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the frame is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Completes the frame with its number, and returns its bytes.
    pub(crate) fn finish(&mut self, number: u64) -> &[u8] {
        let length = self.bytes.len() - FRAME_HEADER;
        let checksum = frame_checksum(self.log, number, &self.bytes[FRAME_HEADER..]);
        let mut head = &mut self.bytes[..FRAME_HEADER];
        head.put_slice(&FRAME_MAGIC);
        head.put_u32_le(four_bytes(length));
        head.put_u64_le(number);
        head.put_u32_le(checksum);
        &self.bytes
    }

    /// The changes for the index, for a frame that begins at `at`.
    pub(crate) fn into_changes(self, at: Position) -> Vec<Change> {
        let mut changes = self.changes;
        for change in &mut changes {
            if let Change::Appended(run, _) | Change::Delayed(run, _) | Change::Moved(run) = change {
                // Relative to the frame until now, because its position is known only once it is written.
                run.at = Position { segment: at.segment, offset: at.offset + run.at.offset };
            }
        }
        changes
    }
}

/// Reads the items of a frame that begins at `at`. Messages in them may be damaged.
pub(crate) fn changes(log: u32, items: &[u8], at: Position) -> Result<Vec<Change>, Corrupt> {
    let begin = at.offset + FRAME_HEADER as u64;
    let change = |item: Item<'_>| {
        let at = Position { segment: at.segment, offset: begin + item.offset as u64 };
        Ok(match item.kind {
            RECORD => Change::Other(serde_json::from_slice(item.content).map_err(|_| Corrupt)?),
            kind => {
                let run = run::head(item.content, at)?;
                match kind {
                    APPENDED => Change::Appended(run, last_time(log, &run, item.content)),
                    PARKED => Change::Delayed(run, last_time(log, &run, item.content)),
                    _ => Change::Moved(run),
                }
            }
        })
    };
    Items::of(items).map(|item| change(item?)).collect()
}

/// When the last readable message of a run entered; 0 if there is none.
fn last_time(log: u32, run: &Run, content: &[u8]) -> i64 {
    let times = run::read(log, run, &Bytes::copy_from_slice(content)).times();
    times.into_iter().rev().find_map(|(_, time)| time).unwrap_or(0)
}

/// A part of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    kind: u8,
    /// The offset of the content within the items.
    pub(crate) offset: usize,
    pub(crate) content: &'a [u8],
}

impl Item<'_> {
    /// Whether it is a run of messages.
    pub(crate) fn is_run(&self) -> bool {
        self.kind != RECORD
    }
}

/// Iterates over the parts of a frame. It ends after the first one that cannot be read.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Items<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    fn take(&mut self) -> Option<Item<'a>> {
        let mut head = self.bytes.get(self.offset..self.offset + ITEM_HEADER)?;
        let (kind, length) = (head.get_u8(), head.get_u32_le() as usize);
        let offset = self.offset + ITEM_HEADER;
        let content = self.bytes.get(offset..offset.checked_add(length)?)?;
        // Zeros are not an item: a frame that lost its end must not be read as empty items.
        if kind > MOVED || length == 0 {
            return None;
        }
        self.offset = offset + length;
        Some(Item { kind, offset, content })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, Corrupt>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.bytes.len() {
            return None;
        }
        let taken = self.take();
        if taken.is_none() {
            self.offset = self.bytes.len();
        }
        Some(taken.ok_or(Corrupt))
    }
}

/// How many records form one run: messages appended to this stream one after the other.
fn length_of_run(stream: StreamId, first: u64, records: &[Record]) -> usize {
    let mut bytes = 0;
    let goes_on = |(place, record): &(u64, &Record)| match record {
        Record::Appended(of, message) if *of == stream && message.seq == *place => {
            bytes += message.json.len();
            // A run is read as a whole, so it is kept small. One message alone may be larger.
            bytes <= RUN_BYTES || *place == first
        }
        _ => false,
    };
    (first..).zip(records).take_while(goes_on).count()
}

fn message_of(record: &Record) -> Option<&Arc<StoredMessage>> {
    match record {
        Record::Appended(_, message) | Record::Delayed(_, message) => Some(message),
        _ => None,
    }
}

/// Whether the records contain new messages. A dead letter was stored before, and so was a message whose delay has just ended.
fn has_new_messages(records: &[Record]) -> bool {
    let mut delay_ended = false;
    records.iter().any(|record| {
        // The preparer puts the end of a delay directly before the message that enters the stream.
        let was_delayed = std::mem::replace(&mut delay_ended, matches!(record, Record::DelayEnded(..)));
        match record {
            Record::Delayed(..) => true,
            Record::Appended(_, message) => message.dead_letter.is_none() && !was_delayed,
            _ => false,
        }
    })
}

/// An estimate of the bytes of a record.
fn size(record: &Record) -> usize {
    message_of(record).map_or(256, |message| ITEM_HEADER + RUN_HEADER + MESSAGE_HEADER + message.json.len() + 64)
}

/// Reads any bytes as the items of a frame, and as the content of a run.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    let at = Position { segment: 1, offset: 0 };
    drop(changes(1, bytes, at));
    let content = Bytes::copy_from_slice(bytes);
    let Ok(run) = run::head(&content, at) else { return };
    let read = run::read(1, &run, &content);
    assert!(read.messages.len() + read.damaged.len() <= run.count as usize);
    let item = [&[APPENDED][..], &four_bytes(content.len()).to_le_bytes(), &content].concat();
    drop(changes(1, &item, at));
}
