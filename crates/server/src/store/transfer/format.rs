//! The files of an export. Pure except for reading and writing them.
//!
//! An export is a directory: `export.json` lists one file for each queue, and is written last. A file is a sequence of records. Each
//! is a line with a CRC-32 in hexadecimal, the length of the payload, and JSON, separated by spaces; then the payload, if it has one,
//! and a line feed. The checksum covers the JSON and the payload. `docs/storage.md` describes the records.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::{
    CursorSnapshot, GroupRow, MessageOrigin, QueueRow, QueueSnapshot, RetentionPolicy, ScheduleProgress, ScheduleRow,
    SentKeys, StreamSnapshot,
    disk::{
        file_ops::{private, sync_directory},
        open::create,
    },
    transfer::error::TransferError,
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{QueueTag, TagFilter},
};

/// The text by which an export is recognized.
pub(crate) const FORMAT: &str = "dms-export";
/// The version that this program writes, and the only one that it reads.
pub(crate) const VERSION: u32 = 1;
/// The list of the files. It is written last.
pub(crate) const MANIFEST: &str = "export.json";
/// What an export that has not finished is of.
pub(crate) const UNFINISHED: &str = "unfinished.json";
/// The directory of the files.
pub(crate) const QUEUES: &str = "queues";
/// No record or payload is larger: a message has at most some megabytes.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// The content of [`MANIFEST`], and without files of [`UNFINISHED`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) version: u32,
    /// Random. A target that is being imported into has it, too.
    pub(crate) id: String,
    /// The version of the program.
    pub(crate) program: String,
    /// Where the queues were, for people.
    pub(crate) source: String,
    /// The state of the source: an export that is continued must be of the same.
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) queues: Vec<QueueFile>,
}

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueFile {
    /// Its path in the directory.
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) crc32: u32,
    pub(crate) project: String,
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) counts: ExportCounts,
}

/// How many messages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportCounts {
    /// Messages in queues.
    pub messages: u64,
    /// Messages whose delay has not ended.
    pub delayed: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Damaged messages, of which only the place was exported.
    pub lost: u64,
}

impl ExportCounts {
    /// Adds the counts of another queue.
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.delayed += other.delayed;
        self.dead_letters += other.dead_letters;
        self.lost += other.lost;
    }

    /// All messages.
    pub fn all(self) -> u64 {
        self.messages + self.delayed + self.dead_letters + self.lost
    }
}

/// A record of the file of a queue, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Item {
    /// The first record: everything except messages and positions.
    Queue(Box<QueueHead>),
    /// A message, whose JSON is the payload. The messages of the queue come first, then delayed ones, then dead letters of each group.
    Message(MessageHead),
    /// The place of a message that was damaged.
    Lost { stream: u32, place: u64 },
    /// Messages below the head of a cursor that it has not settled, with their failures, in order.
    Open { cursor: u32, places: Vec<(u64, u32)> },
    /// Deduplication keys of sent messages.
    Keys(SentKeys),
    /// The last record.
    End(ExportCounts),
}

/// A queue. The other records of the file name streams and cursors by its number and the numbers of its groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueHead {
    #[serde(flatten)]
    pub(crate) row: QueueRow,
    pub(crate) tags: Vec<QueueTag>,
    pub(crate) retention: RetentionPolicy,
    pub(crate) schedules: Vec<ScheduleHead>,
    pub(crate) messages: StreamHead,
    /// The sequence number of the next delayed message.
    pub(crate) next_delayed: u64,
    pub(crate) groups: Vec<GroupHead>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScheduleHead {
    #[serde(flatten)]
    pub(crate) row: ScheduleRow,
    pub(crate) progress: ScheduleProgress,
}

/// The bounds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamHead {
    /// The sequence number of the first message.
    pub(crate) low: u64,
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// When the last message entered.
    pub(crate) newest_ms: i64,
    /// When the first message entered, or earlier.
    pub(crate) oldest_ms: Option<i64>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupHead {
    #[serde(flatten)]
    pub(crate) row: GroupRow,
    pub(crate) position: CursorHead,
    pub(crate) dead_letters: StreamHead,
    pub(crate) dead_letter_position: CursorHead,
}

/// The position of a group on a stream. Its open messages below the head are in separate records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CursorHead {
    /// Every message from this one on is open.
    pub(crate) head: u64,
    pub(crate) consumed: u64,
    pub(crate) rule: Option<TagFilter>,
    /// How many messages below the head are not settled.
    pub(crate) open: u64,
    /// The CRC-32 of them and their failures.
    pub(crate) open_crc32: u32,
}

/// A message without its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MessageHead {
    /// The stream that it is in.
    pub(crate) stream: u32,
    pub(crate) place: u64,
    /// When it entered; when its delay ends.
    pub(crate) entered_ms: i64,
    /// The size of its body.
    pub(crate) body_bytes: usize,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) tags: Arc<[String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dead_letter: Option<Arc<DeadLetterInfo>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The number of the only group that gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) only_for: Option<u32>,
}

impl MessageHead {
    /// The first place, from which its id follows, if that was another one.
    pub(crate) fn origin(&self) -> Result<Option<MessageOrigin>, &'static str> {
        let parse = |id: &String| MessageOrigin::parse(id).ok_or("the id of a message is no id");
        self.id.as_ref().map(parse).transpose()
    }
}

impl From<StreamSnapshot> for StreamHead {
    fn from(stream: StreamSnapshot) -> Self {
        let StreamSnapshot { low, next, oldest, newest } = stream;
        Self { low, next, newest_ms: newest, oldest_ms: oldest }
    }
}

impl From<&CursorSnapshot> for CursorHead {
    fn from(cursor: &CursorSnapshot) -> Self {
        let mut sum = crc32fast::Hasher::new();
        for (place, failures) in &cursor.ready {
            sum.update(&place.to_le_bytes());
            // Pages count up to this.
            sum.update(&(*failures).min(u32::from(u16::MAX)).to_le_bytes());
        }
        Self {
            head: cursor.head,
            consumed: cursor.consumed,
            rule: cursor.rule.clone(),
            open: cursor.ready.len() as u64,
            open_crc32: sum.finalize(),
        }
    }
}

impl QueueHead {
    /// A queue and its groups.
    pub(crate) fn of<'a>(
        queue: &QueueSnapshot,
        groups: impl IntoIterator<Item = &'a crate::store::GroupSnapshot>,
    ) -> Self {
        let schedules = queue.schedules.iter();
        let schedules = schedules.map(|one| ScheduleHead { row: one.row.clone(), progress: one.progress }).collect();
        let group = |group: &crate::store::GroupSnapshot| GroupHead {
            row: group.row.clone(),
            position: (&group.cursor).into(),
            dead_letters: group.dead_letters.into(),
            dead_letter_position: (&group.dead_letter_cursor).into(),
        };
        Self {
            row: queue.row.clone(),
            tags: queue.tags.clone(),
            retention: queue.retention,
            schedules,
            messages: queue.stream.into(),
            next_delayed: queue.delay_queue.next,
            groups: groups.into_iter().map(group).collect(),
        }
    }

    /// The first thing in which a queue of a store differs from this one, numbers aside.
    pub(crate) fn difference(&self, found: &Self) -> Option<String> {
        let differs = |what: &str, wanted: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
            Some(format!("{what} is {found:?} there and {wanted:?} in the export"))
        };
        let stream = |what: &str, wanted: StreamHead, found: StreamHead| {
            let bounds = |stream: StreamHead| (stream.low, stream.next);
            if bounds(wanted) == bounds(found) {
                return None;
            }
            differs(&format!("the range of {what}"), &(wanted.low..wanted.next), &(found.low..found.next))
        };
        let row = |row: &QueueRow| QueueRow { number: 0, ..row.clone() };
        if row(&self.row) != row(&found.row) {
            return differs("a property", &row(&self.row), &row(&found.row));
        }
        if self.tags != found.tags || self.retention != found.retention {
            return differs("tags or retention", &(&self.tags, self.retention), &(&found.tags, found.retention));
        }
        if self.schedules != found.schedules {
            let names = |of: &Self| of.schedules.iter().map(|one| one.row.name.clone()).collect::<Vec<_>>();
            return differs("a schedule, or how far it has come, among", &names(self), &names(found));
        }
        if let Some(difference) = stream("messages", self.messages, found.messages) {
            return Some(difference);
        }
        if self.next_delayed != found.next_delayed {
            return differs("the number of the next delayed message", &self.next_delayed, &found.next_delayed);
        }
        if self.groups.len() != found.groups.len() {
            return differs("the number of groups", &self.groups.len(), &found.groups.len());
        }
        for (wanted, found) in self.groups.iter().zip(&found.groups) {
            let name = &wanted.row.name;
            let row = |row: &GroupRow| GroupRow { number: 0, ..row.clone() };
            if row(&wanted.row) != row(&found.row) {
                return differs("a group", &row(&wanted.row), &row(&found.row));
            }
            if wanted.position != found.position {
                return differs(&format!("the position of group {name}"), &wanted.position, &found.position);
            }
            let dead = format!("the dead letters of group {name}");
            if let Some(difference) = stream(&dead, wanted.dead_letters, found.dead_letters) {
                return Some(difference);
            }
            if wanted.dead_letter_position != found.dead_letter_position {
                let what = format!("the position on {dead}");
                return differs(&what, &wanted.dead_letter_position, &found.dead_letter_position);
            }
        }
        None
    }
}

/// Writes the file of a queue. It gets its name when it is complete.
#[derive(Debug)]
pub(crate) struct FileWriter {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    /// The number of bytes written.
    bytes: u64,
    sum: crc32fast::Hasher,
}

impl FileWriter {
    pub(crate) fn create(path: PathBuf) -> Result<Self, TransferError> {
        let part = path.with_extension("part");
        let file = private().write(true).create(true).truncate(true).open(&part);
        let file = file.map_err(|error| TransferError::io(&part, error))?;
        let out = BufWriter::with_capacity(256 * 1024, file);
        Ok(Self { out, part, path, bytes: 0, sum: crc32fast::Hasher::new() })
    }

    pub(crate) fn put(&mut self, item: &Item, payload: &[u8]) -> Result<(), TransferError> {
        let json = serde_json::to_string(item).map_err(|error| TransferError::io(&self.path, error.into()))?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(json.as_bytes());
        sum.update(payload);
        let head = format!("{:08x} {} {json}\n", sum.finalize(), payload.len());
        self.write(head.as_bytes())?;
        if !payload.is_empty() {
            self.write(payload)?;
            self.write(b"\n")?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| TransferError::io(&self.part, error))
    }

    /// Brings the file to the disk under its name. Returns its size and its CRC-32.
    pub(crate) fn finish(mut self) -> Result<(u64, u32), TransferError> {
        let written = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        written.map_err(|error| TransferError::io(&self.part, error))?;
        std::fs::rename(&self.part, &self.path).map_err(|error| TransferError::io(&self.path, error))?;
        Ok((self.bytes, self.sum.finalize()))
    }
}

/// Reads the file of a queue.
#[derive(Debug)]
pub(crate) struct FileReader {
    input: BufReader<File>,
    path: PathBuf,
    /// Where the next record begins.
    pub(crate) offset: u64,
    /// Where the last one began.
    pub(crate) last: u64,
    sum: crc32fast::Hasher,
}

impl FileReader {
    pub(crate) fn open(path: &Path) -> Result<Self, TransferError> {
        let file = File::open(path).map_err(|error| TransferError::io(path, error))?;
        let input = BufReader::with_capacity(256 * 1024, file);
        Ok(Self { input, path: path.to_owned(), offset: 0, last: 0, sum: crc32fast::Hasher::new() })
    }

    /// The error of the record that was read last.
    pub(crate) fn damaged(&self, reason: impl Into<String>) -> TransferError {
        TransferError::Damaged { file: self.path.clone(), offset: self.last, reason: reason.into() }
    }

    /// The first record.
    pub(crate) fn head(&mut self) -> Result<QueueHead, TransferError> {
        match self.next()? {
            Some((Item::Queue(head), _)) => Ok(*head),
            _ => Err(self.damaged("it does not begin with a queue")),
        }
    }

    /// The next record and its payload; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<(Item, Bytes)>, TransferError> {
        self.last = self.offset;
        let mut line = Vec::new();
        let mut limited = (&mut self.input).take(MAX_BYTES as u64);
        limited.read_until(b'\n', &mut line).map_err(|error| TransferError::io(&self.path, error))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.sum.update(&line);
        let (sum, length, json) = head_of(&line).ok_or_else(|| self.damaged("the line is no record"))?;
        let mut payload = vec![0; if length > 0 { length + 1 } else { 0 }];
        self.input.read_exact(&mut payload).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
            _ => TransferError::io(&self.path, error),
        })?;
        self.sum.update(&payload);
        self.offset += (line.len() + payload.len()) as u64;
        if payload.pop().is_some_and(|last| last != b'\n') {
            return Err(self.damaged("it is not followed by a line feed"));
        }
        let mut found = crc32fast::Hasher::new();
        found.update(json);
        found.update(&payload);
        if found.finalize() != sum {
            return Err(self.damaged("its bytes do not match their checksum"));
        }
        let item = serde_json::from_slice(json).map_err(|error| self.damaged(error.to_string()))?;
        Ok(Some((item, payload.into())))
    }

    /// Reads the rest of the file. Returns its size, its CRC-32 and the counts of its last record.
    pub(crate) fn check(mut self) -> Result<(u64, u32, ExportCounts), TransferError> {
        let mut end = None;
        while let Some((item, _)) = self.next()? {
            if end.is_some() {
                return Err(self.damaged("it comes after the last record"));
            }
            if let Item::End(counts) = item {
                end = Some(counts);
            }
        }
        let counts = end.ok_or_else(|| self.damaged("it is cut off: the last record is missing"))?;
        Ok((self.offset, self.sum.finalize(), counts))
    }
}

/// The parts of the line of a record.
fn head_of(line: &[u8]) -> Option<(u32, usize, &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (sum, length) = (u32::from_str_radix(text()?, 16).ok()?, text()?.parse().ok()?);
    (length <= MAX_BYTES).then_some(())?;
    Some((sum, length, parts.next()?))
}

/// Writes a small file so that it is there as a whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TransferError> {
    let failed = |error| TransferError::io(path, error);
    let part = path.with_extension("part");
    let json = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    let mut file = private().write(true).create(true).truncate(true).open(&part).map_err(failed)?;
    file.write_all(&json).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)?;
    sync_directory(path.parent().unwrap_or(path)).map_err(failed)
}

/// Reads a small file; `None` if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TransferError> {
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|error| TransferError::Damaged {
            file: path.to_owned(),
            offset: 0,
            reason: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TransferError::io(path, error)),
    }
}

/// Reads a manifest of a version that this program knows.
pub(crate) fn read_manifest(path: &Path) -> Result<Option<Manifest>, TransferError> {
    // Only these two of another version are certain.
    #[derive(Deserialize)]
    struct Version {
        format: String,
        version: u32,
    }
    let Some(found) = read_json::<serde_json::Value>(path)? else { return Ok(None) };
    match serde_json::from_value(found.clone()) {
        Ok(Version { format, .. }) if format != FORMAT => {
            return Err(TransferError::NoExport {
                dir: path.parent().unwrap_or(path).to_owned(),
                found: "export.json is of something else",
            });
        }
        Ok(Version { version, .. }) if version != VERSION => {
            return Err(TransferError::Version { file: path.to_owned(), found: version, known: VERSION });
        }
        _ => {}
    }
    let manifest = serde_json::from_value(found);
    manifest.map(Some).map_err(|error| TransferError::Damaged {
        file: path.to_owned(),
        offset: 0,
        reason: error.to_string(),
    })
}

/// Creates a directory that only this user may read.
pub(crate) fn make_directory(path: &Path) -> Result<(), TransferError> {
    create(path).map_err(|error| TransferError::io(path, error))
}
