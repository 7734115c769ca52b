//! The bytes of a run, which is a sequence of consecutive messages of one stream. Each message has its own checksums, so that
//! damage to one does not affect the others. Pure.
//!
//! | run | bytes | | message | bytes |
//! |---|---|---|---|---|
//! | stream | 4 | | time | 8 |
//! | first sequence number | 8 | | size of the body, of labels, of JSON | 4 each |
//! | number of messages, and [`HAS_CHECKSUMS`] | 4 | | checksum of labels and JSON | 4 |
//! | checksum of the run's other bytes | 4 | | checksum of the above, the stream and the sequence number | 4 |
//! | messages | | | labels, JSON | |
//!
//! In a dead letter with a reason the highest bit of the size of its labels is set. Before the labels there are a length (4) and
//! that number of bytes of JSON, and the size covers both. In a message that first entered elsewhere the second highest bit is set,
//! and its origin (18) comes before all of these. In a message for one group alone the third highest bit is set, and the number of
//! its cursor (4) comes first.
//!
//! Versions 2 and 3 wrote messages without checksums, in runs without [`HAS_CHECKSUMS`]. There one damaged message makes its whole
//! run unreadable.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    shared_buffer::{BufferSize, SharedBuffer},
    store::{
        CursorId, MessageOrigin, StoredMessage, StreamId,
        position::{Position, Run},
    },
};
use dms_protocol::message::DeadLetterInfo;

/// Bytes of a run before its messages.
pub(crate) const RUN_HEADER: usize = 20;
/// Bytes of a message before its labels.
pub(crate) const MESSAGE_HEADER: usize = 28;
/// Bytes of a message before its labels, in a run without [`HAS_CHECKSUMS`].
const OLD_MESSAGE_HEADER: usize = 20;
/// A run ends at this size in bytes, because all of it is read to get one message.
pub(crate) const RUN_BYTES: usize = 48 * 1024;

/// Set in the number of messages if each of them has its own checksums.
const HAS_CHECKSUMS: u32 = 1 << 31;
/// Set in the length of the labels if the dead letter has a reason.
const HAS_INFO: u32 = 1 << 31;
/// Set in the length of the labels if the message has an origin.
const HAS_ORIGIN: u32 = 1 << 30;
/// Set in the length of the labels if the message is for one group alone.
const HAS_GROUP: u32 = 1 << 29;
/// The bits of the length itself.
const LENGTH: u32 = HAS_GROUP - 1;
/// Bytes of the number of a cursor.
const GROUP_BYTES: u32 = 4;
/// Bytes of an origin.
const ORIGIN_BYTES: u32 = 18;
const _: () = assert!(ORIGIN_BYTES as usize == MessageOrigin::BYTES);
/// Bytes of the reason before its text.
const INFO_HEADER: u32 = 4;

/// The bytes do not match their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its bytes do not match their checksum")]
pub(crate) struct Corrupt;

/// The content of a run. Each of its messages is in one of the two lists.
#[derive(Debug, Default)]
pub(crate) struct RunContent {
    /// Intact messages in order.
    pub(crate) messages: Vec<Arc<StoredMessage>>,
    /// Damaged messages in order.
    pub(crate) damaged: Vec<DamagedSlot>,
}

/// A damaged message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedSlot {
    pub(crate) seq: u64,
    /// Where it begins within the run, as far as that is known.
    pub(crate) offset: usize,
    /// When it entered, if its header is intact.
    pub(crate) entered_ms: Option<i64>,
}

impl RunContent {
    /// The entry times of all messages in order; `None` for a time that cannot be read.
    pub(crate) fn times(&self) -> Vec<(u64, Option<i64>)> {
        let whole = self.messages.iter().map(|message| (message.seq, Some(message.entered_ms)));
        let mut times: Vec<_> = whole.chain(self.damaged.iter().map(|wound| (wound.seq, wound.entered_ms))).collect();
        times.sort_unstable_by_key(|(seq, _)| *seq);
        times
    }

    /// A run of which nothing can be read.
    pub(crate) fn lost(run: &Run) -> Self {
        let wound = |seq| DamagedSlot { seq, offset: 0, entered_ms: None };
        Self { messages: Vec::new(), damaged: (run.first..run.end()).map(wound).collect() }
    }
}

/// Writes a run of these messages. Returns how many there are.
pub(crate) fn put<'a>(
    bytes: &mut BytesMut,
    log: u32,
    (stream, first): (StreamId, u64),
    messages: impl Iterator<Item = &'a Arc<StoredMessage>>,
) -> Result<u32, serde_json::Error> {
    let begin = bytes.len();
    bytes.put_bytes(0, RUN_HEADER);
    let mut count = 0;
    for (seq, message) in (first..).zip(messages) {
        put_message(bytes, log, (stream, seq), message)?;
        count += 1;
    }
    put_head(&mut bytes[begin..], stream, first, count | HAS_CHECKSUMS);
    let sum = checksum(log, &bytes[begin..]);
    bytes[begin + RUN_HEADER - 4..begin + RUN_HEADER].copy_from_slice(&sum.to_le_bytes());
    Ok(count)
}

fn put_head(mut bytes: &mut [u8], stream: StreamId, first: u64, count: u32) {
    bytes.put_u32_le(stream.0);
    bytes.put_u64_le(first);
    bytes.put_u32_le(count);
}

/// The bytes of a run that is written again elsewhere. Damaged messages stay damaged, but the header of the run is correct.
pub(crate) fn moved_bytes(log: u32, run: &Run, content: &Bytes) -> Bytes {
    if content.len() < RUN_HEADER || is_whole(log, run, content) {
        return content.clone();
    }
    // Messages without checksums must not be marked as having some.
    let checked = if read(log, run, content).messages.is_empty() { 0 } else { HAS_CHECKSUMS };
    let mut bytes = BytesMut::from(&content[..]);
    put_head(&mut bytes, run.stream, run.first, run.count | checked);
    bytes.freeze()
}

/// Reads the header of a run. Its messages may be damaged.
///
/// # Errors
/// When there are more messages than these bytes can hold, or a sequence number exceeds the maximum.
pub(crate) fn head(content: &[u8], at: Position) -> Result<Run, Corrupt> {
    let (mut head, messages) = content.split_at_checked(RUN_HEADER).ok_or(Corrupt)?;
    let (stream, first, count) = (StreamId(head.get_u32_le()), head.get_u64_le(), head.get_u32_le() & !HAS_CHECKSUMS);
    if count as usize > messages.len() / OLD_MESSAGE_HEADER || first.checked_add(u64::from(count)).is_none() {
        return Err(Corrupt);
    }
    Ok(Run { stream, first, count, at, bytes: four_bytes(content.len()) })
}

/// The difference between the stored checksum of a run and the one of its bytes; 0 if they match.
pub(crate) fn checksum_difference(log: u32, content: &[u8]) -> u32 {
    match content.get(RUN_HEADER - 4..RUN_HEADER).and_then(|sum| sum.try_into().ok()) {
        Some(sum) => checksum(log, content) ^ u32::from_le_bytes(sum),
        None => 0,
    }
}

fn is_whole(log: u32, run: &Run, content: &[u8]) -> bool {
    head(content, run.at) == Ok(*run) && checksum_difference(log, content) == 0
}

/// Reads the content of a run. Its messages do not keep `content` in memory, unless there is only one.
pub(crate) fn read(log: u32, run: &Run, content: &Bytes) -> RunContent {
    if run.count > 1 { read_copied(log, run, content) } else { read_with(log, run, content, Texts::Sliced(content)) }
}

/// Reads the content of a run. Its messages are copied.
pub(crate) fn read_copied(log: u32, run: &Run, content: &[u8]) -> RunContent {
    let count = run.count as usize;
    let buffer = SharedBuffer::new(count, content.len().saturating_sub(RUN_HEADER + count * MESSAGE_HEADER));
    read_with(log, run, content, Texts::Copied(buffer))
}

fn read_with(log: u32, run: &Run, content: &[u8], mut texts: Texts<'_>) -> RunContent {
    if is_whole(log, run, content)
        && let Ok(messages) = read_whole(run, content, &mut texts)
    {
        return RunContent { messages, damaged: Vec::new() };
    }
    salvage(log, run, content, &mut texts)
}

fn read_whole(run: &Run, content: &[u8], texts: &mut Texts<'_>) -> Result<Vec<Arc<StoredMessage>>, Corrupt> {
    let head_bytes = if is_checked(content) { MESSAGE_HEADER } else { OLD_MESSAGE_HEADER };
    let mut messages = Vec::with_capacity(run.count as usize);
    let mut at = RUN_HEADER;
    for seq in run.first..run.end() {
        let (message, end) = read_message(content, at, head_bytes, seq, texts)?;
        messages.push(Arc::new(message));
        at = end;
    }
    Ok(messages)
}

/// Where the JSON of the messages of a run goes.
enum Texts<'a> {
    /// It stays in the bytes of the run, which hold nothing else.
    Sliced(&'a Bytes),
    /// Few messages at a time get memory of their own: a leased message must not keep up to 48 KiB of others.
    Copied(SharedBuffer),
}

impl Texts<'_> {
    fn put(&mut self, json: &[u8]) -> (Bytes, BufferSize) {
        match self {
            Self::Sliced(content) => (content.slice_ref(json), BufferSize::default()),
            Self::Copied(buffer) => {
                let json = buffer.put(json.len(), |room| room.put_slice(json));
                (json, buffer.size())
            }
        }
    }
}

/// Whether the header says that messages have checksums.
pub(crate) fn is_checked(content: &[u8]) -> bool {
    content.get(12..16).is_some_and(|mut count| count.get_u32_le() & HAS_CHECKSUMS > 0)
}

/// The messages of a damaged run that are intact.
fn salvage(log: u32, run: &Run, content: &[u8], texts: &mut Texts<'_>) -> RunContent {
    let mut found = RunContent::default();
    let mut at = RUN_HEADER;
    let mut seq = run.first;
    while seq < run.end() {
        let head = content.get(at..).and_then(|bytes| MessageHeader::read(log, (run.stream, seq), bytes));
        let Some(head) = head else {
            // Its size is unknown, so the next header is searched for.
            let next = find_head(log, run, content, (at + 1, seq + 1));
            let (behind, next_seq) = next.unwrap_or((content.len(), run.end()));
            let wound = |seq| DamagedSlot { seq, offset: at, entered_ms: None };
            found.damaged.extend((seq..next_seq).map(wound));
            (at, seq) = (behind, next_seq);
            continue;
        };
        let end = at + head.size();
        match head.message(content, at, seq, texts) {
            Ok(message) => found.messages.push(Arc::new(message)),
            Err(Corrupt) => found.damaged.push(DamagedSlot { seq, offset: at, entered_ms: Some(head.entered_ms) }),
        }
        (at, seq) = (end, seq + 1);
    }
    found
}

/// The first header of a later message from an offset on.
fn find_head(log: u32, run: &Run, content: &[u8], (from, seq): (usize, u64)) -> Option<(usize, u64)> {
    let places = from..content.len().saturating_sub(MESSAGE_HEADER - 1);
    // No checksum is computed where the sizes are impossible, which is nearly everywhere.
    let possible = places.filter(|at| MessageHeader::fits(&content[*at..]));
    let is_head = |at: &usize, seq: &u64| MessageHeader::read(log, (run.stream, *seq), &content[*at..]).is_some();
    possible.into_iter().find_map(|at| Some((at, (seq..run.end()).find(|seq| is_head(&at, seq))?)))
}

/// The header of a message with checksums.
pub(crate) struct MessageHeader {
    pub(crate) entered_ms: i64,
    labels: usize,
    json: usize,
    checksum: u32,
}

impl MessageHeader {
    /// Whether the sizes in these bytes are possible for a message.
    fn fits(bytes: &[u8]) -> bool {
        let mut sizes = &bytes[12..20];
        let (labels, json) = ((sizes.get_u32_le() & LENGTH) as usize, sizes.get_u32_le() as usize);
        json > 0 && labels.saturating_add(json) <= bytes.len() - MESSAGE_HEADER
    }

    /// Reads the header of a message, if the bytes are long enough for the message.
    fn read(log: u32, place: (StreamId, u64), bytes: &[u8]) -> Option<Self> {
        let head = Self::read_head(log, place, bytes)?;
        (head.size() <= bytes.len()).then_some(head)
    }

    /// Reads the header of a message without the rest of it.
    pub(crate) fn read_head(log: u32, place: (StreamId, u64), bytes: &[u8]) -> Option<Self> {
        let mut head = bytes.get(..MESSAGE_HEADER)?;
        let sum = checksum_of_head(log, place, head);
        let (entered_ms, _) = (head.get_i64_le(), head.get_u32_le());
        let (labels, json) = ((head.get_u32_le() & LENGTH) as usize, head.get_u32_le() as usize);
        let found = Self { entered_ms, labels, json, checksum: head.get_u32_le() };
        (head.get_u32_le() == sum).then_some(found)
    }

    /// The size of the message.
    pub(crate) fn size(&self) -> usize {
        MESSAGE_HEADER + self.labels + self.json
    }

    /// The message at this offset of a run.
    fn message(&self, content: &[u8], at: usize, seq: u64, texts: &mut Texts<'_>) -> Result<StoredMessage, Corrupt> {
        if crc32fast::hash(&content[at + MESSAGE_HEADER..at + self.size()]) != self.checksum {
            return Err(Corrupt);
        }
        read_message(content, at, MESSAGE_HEADER, seq, texts).map(|(message, _)| message)
    }
}

/// The entry time of a message without checksums, and the number of bytes to the next message.
pub(crate) fn old_entry_time(head: &[u8; MESSAGE_HEADER]) -> (i64, u64) {
    let mut head = &head[..];
    let (entered_ms, _body) = (head.get_i64_le(), head.get_u32_le());
    let (labels, json) = (u64::from(head.get_u32_le() & LENGTH), u64::from(head.get_u32_le()));
    (entered_ms, OLD_MESSAGE_HEADER as u64 + labels + json)
}

fn put_message(
    bytes: &mut BytesMut,
    log: u32,
    place: (StreamId, u64),
    message: &StoredMessage,
) -> Result<(), serde_json::Error> {
    let info = message.dead_letter.as_ref().map(serde_json::to_vec).transpose()?;
    let begin = bytes.len();
    bytes.put_i64_le(message.entered_ms);
    bytes.put_u32_le(four_bytes(message.body_bytes));
    let labels = four_bytes(labels_length(message));
    let labels = info.as_ref().map_or(labels, |info| (labels + INFO_HEADER + four_bytes(info.len())) | HAS_INFO);
    let labels = message.origin.map_or(labels, |_| (labels + ORIGIN_BYTES) | HAS_ORIGIN);
    bytes.put_u32_le(message.only_for.map_or(labels, |_| (labels + GROUP_BYTES) | HAS_GROUP));
    bytes.put_u32_le(four_bytes(message.json.len()));
    bytes.put_bytes(0, 8);
    if let Some(CursorId(group)) = message.only_for {
        bytes.put_u32_le(group);
    }
    if let Some(origin) = &message.origin {
        bytes.put_slice(origin.as_bytes());
    }
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
    let sum = crc32fast::hash(&bytes[begin + MESSAGE_HEADER..]);
    bytes[begin + MESSAGE_HEADER - 8..begin + MESSAGE_HEADER - 4].copy_from_slice(&sum.to_le_bytes());
    let sum = checksum_of_head(log, place, &bytes[begin..begin + MESSAGE_HEADER]);
    bytes[begin + MESSAGE_HEADER - 4..begin + MESSAGE_HEADER].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Reads the message at `at`. Returns it and where the next one begins.
fn read_message(
    content: &[u8],
    at: usize,
    head_bytes: usize,
    seq: u64,
    texts: &mut Texts<'_>,
) -> Result<(StoredMessage, usize), Corrupt> {
    let mut rest = content.get(at..).ok_or(Corrupt)?;
    let mut head = take(&mut rest, head_bytes)?;
    let (entered_ms, body_bytes) = (head.get_i64_le(), head.get_u32_le() as usize);
    let (labels, json) = (head.get_u32_le(), head.get_u32_le() as usize);
    let (has_info, has_origin, has_group) = (labels & HAS_INFO > 0, labels & HAS_ORIGIN > 0, labels & HAS_GROUP > 0);
    let mut labels = take(&mut rest, (labels & LENGTH) as usize)?;
    let json = take(&mut rest, json)?;
    let only_for = match has_group {
        true => Some(CursorId(labels.try_get_u32_le().map_err(|_| Corrupt)?)),
        false => None,
    };
    let origin = if has_origin { Some(take_origin(&mut labels)?) } else { None };
    let dead_letter: Option<DeadLetterInfo> = if has_info {
        let length = labels.try_get_u32_le().map_err(|_| Corrupt)? as usize;
        Some(serde_json::from_slice(take(&mut labels, length)?).map_err(|_| Corrupt)?)
    } else {
        None
    };
    let tags = match std::str::from_utf8(labels).map_err(|_| Corrupt)? {
        "" => Arc::default(),
        labels => labels.split(',').map(str::to_owned).collect(),
    };
    let (json, buffer) = texts.put(json);
    let dead_letter = dead_letter.map(Arc::new);
    let end = content.len() - rest.len();
    Ok((StoredMessage { seq, entered_ms, json, buffer, body_bytes, tags, dead_letter, origin, only_for }, end))
}

fn take_origin(bytes: &mut &[u8]) -> Result<MessageOrigin, Corrupt> {
    let mut origin = [0; MessageOrigin::BYTES];
    origin.copy_from_slice(take(bytes, MessageOrigin::BYTES)?);
    Ok(MessageOrigin::from_bytes(origin))
}

/// The next `length` bytes, if there are enough.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Corrupt> {
    bytes.split_off(..length).ok_or(Corrupt)
}

/// The CRC-32 of a run without the checksum itself.
fn checksum(log: u32, content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&content[..RUN_HEADER - 4]);
    sum.update(&content[RUN_HEADER..]);
    sum.finalize()
}

/// The CRC-32 of a message's header without the checksum itself, and of its stream and sequence number.
fn checksum_of_head(log: u32, (stream, seq): (StreamId, u64), head: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&stream.0.to_le_bytes());
    sum.update(&seq.to_le_bytes());
    sum.update(&head[..MESSAGE_HEADER - 4]);
    sum.finalize()
}

/// A length as stored. No commit is larger: the broker limits them to some megabytes.
pub(crate) fn four_bytes(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn labels_length(message: &StoredMessage) -> usize {
    message.tags.iter().map(String::len).sum::<usize>() + message.tags.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flipped bit in the number of messages is no reason to look for millions of them.
    #[test]
    fn a_run_holds_no_more_messages_than_fit_into_it() {
        let at = Position { segment: 1, offset: 0 };
        let content = |first, count: u32| {
            let mut bytes = vec![0; RUN_HEADER + 3 * OLD_MESSAGE_HEADER];
            put_head(&mut bytes, StreamId(1), first, count);
            bytes
        };
        for count in [0, 1, 3, 3 | HAS_CHECKSUMS] {
            assert_eq!(head(&content(1, count), at).map(|run| run.count), Ok(count & !HAS_CHECKSUMS));
        }
        for (first, count) in [(1, 4), (1, 1 << 30), (1, u32::MAX), (u64::MAX, 1)] {
            assert_eq!(head(&content(first, count), at), Err(Corrupt), "{count} from {first}");
        }
    }
}
