//! [`MessageOrigin`]: where and when a message entered its queue, from which its id follows.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The first place of a message: its queue, its sequence number there, and the time at which it entered.
///
/// Its text is the id of the message, 24 characters of `A-Z a-z 0-9 _ -`. A message keeps its origin when its delay ends and when it
/// becomes a dead letter. The entry time distinguishes messages that got the same place before and after a restore from a backup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MessageOrigin([u8; Self::BYTES]);

/// The kind of the first place of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstPlace {
    /// The queue.
    Queue = 0,
    /// The delay queue. The entry time is the end of the delay.
    DelayQueue = 1,
    /// The dead letters of a group: versions without origins wrote the dead letter.
    DeadLetters = 2,
}

/// The bits of an entry time: enough until the year 4199.
const TIME_BITS: u32 = 46;
const SEQUENCE_BITS: u32 = 48;

impl MessageOrigin {
    /// The size in bytes.
    pub(crate) const BYTES: usize = 18;

    /// The origin of a message. `owner` is the id of the queue, or of the group for [`FirstPlace::DeadLetters`].
    pub(crate) fn new(owner: &str, place: FirstPlace, seq: u64, entered_ms: i64) -> Self {
        let entered = u64::try_from(entered_ms).unwrap_or(0) & ((1 << TIME_BITS) - 1);
        let time = entered | (place as u64) << TIME_BITS;
        let seq = seq & ((1 << SEQUENCE_BITS) - 1);
        let mut bytes = [0; Self::BYTES];
        bytes[..6].copy_from_slice(&digits(owner));
        bytes[6..12].copy_from_slice(&time.to_be_bytes()[2..]);
        bytes[12..].copy_from_slice(&seq.to_be_bytes()[2..]);
        Self(bytes)
    }

    /// Parses the text of an id. `None` if the text is not the id of a message of this project's server.
    pub fn parse(id: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        // Other texts of this length than the canonical one must not name the same message.
        let length = URL_SAFE_NO_PAD.decode_slice(id, &mut bytes).ok()?;
        let origin = Self(bytes);
        (length == Self::BYTES && origin.place().is_some()).then_some(origin)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Whether the message first entered a queue, or a group's dead letters, with this id.
    pub(crate) fn is_of(&self, owner: &str) -> bool {
        self.0[..6] == digits(owner)
    }

    /// The kind of its first place; `None` if the bytes are no origin.
    pub(crate) fn place(&self) -> Option<FirstPlace> {
        match self.time() >> TIME_BITS {
            0 => Some(FirstPlace::Queue),
            1 => Some(FirstPlace::DelayQueue),
            2 => Some(FirstPlace::DeadLetters),
            _ => None,
        }
    }

    /// Its sequence number at its first place.
    pub(crate) fn sequence(&self) -> u64 {
        six(&self.0[12..])
    }

    /// When it entered its first place, in Unix milliseconds.
    pub(crate) fn entered_ms(&self) -> i64 {
        i64::try_from(self.time() & ((1 << TIME_BITS) - 1)).unwrap_or(i64::MAX)
    }

    fn time(&self) -> u64 {
        six(&self.0[6..12])
    }

    /// Calls `with` with the id as text, without allocating.
    pub(crate) fn with_text<T>(&self, with: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; Self::BYTES / 3 * 4];
        // Base64 is ASCII, and the buffer has exactly its length.
        let length = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).unwrap_or(0);
        with(std::str::from_utf8(&text[..length]).unwrap_or_default())
    }
}

/// The first six bytes of the UUID in an id such as `g-5b0cb7a8-…`.
fn digits(id: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    let digits = id.bytes().filter_map(|byte| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    });
    for (at, digit) in digits.take(12).enumerate() {
        bytes[at / 2] = bytes[at / 2] << 4 | digit;
    }
    bytes
}

fn six(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl fmt::Display for MessageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for MessageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageOrigin({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const QUEUE: &str = "9bf46390-38a2-462d-b392-4d5b2d519c55";

    #[test]
    fn an_id_names_queue_place_and_time() {
        let origin = MessageOrigin::new(QUEUE, FirstPlace::DelayQueue, 17, 1_795_550_351_698);
        let id = origin.to_string();
        assert_eq!(id, "m_RjkDiiQaIPJBFSAAAAAAAR");
        let read = MessageOrigin::parse(&id).unwrap();
        assert_eq!((read, read.sequence(), read.entered_ms()), (origin, 17, 1_795_550_351_698));
        assert_eq!(read.place(), Some(FirstPlace::DelayQueue));
        assert!(read.is_of(QUEUE) && !read.is_of("9bf46390-38a3-462d-b392-4d5b2d519c55"));
        assert!(MessageOrigin::new("g-9bf46390-38a2", FirstPlace::DeadLetters, 1, 1).is_of(QUEUE));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "m_RjkDiiQaIPJBFSAAAAAAA",
            "m_RjkDiiQaIPJBFSAAAAAAARA",
            "m_RjkDiiQaIPJB+SAAAAAAAR",
            "m_RjkDii_____________AAR",
        ] {
            assert_eq!(MessageOrigin::parse(text), None, "{text}");
        }
    }

    /// The clock of a machine may be wrong; places never are this large.
    #[test]
    fn every_value_makes_an_id() {
        for (seq, entered_ms) in [(0, -5), (u64::MAX, i64::MAX), (1 << 50, i64::MIN)] {
            let id = MessageOrigin::new("no uuid", FirstPlace::Queue, seq, entered_ms).to_string();
            assert_eq!(MessageOrigin::parse(&id).unwrap().place(), Some(FirstPlace::Queue), "{seq} {entered_ms}");
        }
    }
}
