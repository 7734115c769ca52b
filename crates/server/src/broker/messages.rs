//! Sending, consuming and acknowledging: what a caller passes to the broker and gets from it.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    broker::{AckStatus, KeyHash, MessageOrigin, Stream},
    clock::whole_ms,
    store::FirstPlace,
};
use dms_protocol::{
    limits,
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId, TagFilter},
};

/// The group that a consume or acknowledgement call is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupPath {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The group.
    pub group: GroupId,
}

/// The deduplication key of a message: within the window after a message was stored, another one with the same key in the same queue
/// is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deduplication {
    /// The hash of the key.
    pub(crate) key: KeyHash,
    /// How long the key counts if the message is stored.
    pub(crate) window: Duration,
}

impl Deduplication {
    /// A key and its window, of at most [`MAX_DEDUPLICATION_WINDOW`](dms_protocol::limits::MAX_DEDUPLICATION_WINDOW).
    pub fn new(key: &str, window: Duration) -> Self {
        Self { key: KeyHash::of(key), window: window.min(limits::MAX_DEDUPLICATION_WINDOW) }
    }
}

/// A message that was checked and can be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// The `message` object of a consume answer as JSON text: `{"body":…,"attributes":{…}}`, plus `,"tags":[…]` if there are labels. It
    /// is copied into answers unchanged.
    pub json: Bytes,
    /// The size of the body's JSON text in bytes, which is limited to 524,288.
    pub body_bytes: usize,
    /// The labels.
    pub tags: Vec<String>,
    /// The delay before it can be consumed.
    pub delay: Duration,
    /// The origin of the message that this one is a copy of, whose id it keeps.
    pub origin: Option<MessageOrigin>,
    /// The deduplication key.
    pub deduplication: Option<Box<Deduplication>>,
}

/// Where the messages of a send were stored, from which their ids follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The first one without a delay. The others follow it without gaps.
    pub(crate) first: u64,
    /// When those entered the queue, in Unix milliseconds.
    pub(crate) entered_ms: i64,
    /// The first one with a delay, in the delay queue.
    pub(crate) first_delayed: u64,
    /// When the delays began, in Unix milliseconds.
    pub(crate) now_ms: i64,
    /// The messages that were not stored, because of their deduplication keys: their places in the send, in order, and the ids of the
    /// messages that were stored earlier.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) duplicates: Vec<(usize, MessageOrigin)>,
}

impl Appended {
    /// The messages that were not stored, because a message with the same deduplication key was stored earlier: their places in the
    /// send, in order.
    pub fn duplicates(&self) -> impl ExactSizeIterator<Item = usize> {
        self.duplicates.iter().map(|(place, _)| *place)
    }

    /// The ids of the messages, given the delay and the origin of each. A duplicate has the id of the message that was stored earlier.
    pub fn ids(
        self,
        queue: &QueueId,
        messages: impl Iterator<Item = (Duration, Option<MessageOrigin>)>,
    ) -> impl Iterator<Item = MessageOrigin> {
        let Self { mut first, entered_ms, mut first_delayed, now_ms, duplicates } = self;
        let mut duplicates = duplicates.into_iter().peekable();
        messages.enumerate().map(move |(place, (delay, origin))| {
            if let Some((_, id)) = duplicates.next_if(|(duplicate, _)| *duplicate == place) {
                return id;
            }
            let delay = whole_ms(delay);
            let (place, next, at) = match delay {
                ..=0 => (FirstPlace::Queue, &mut first, entered_ms),
                _ => (FirstPlace::DelayQueue, &mut first_delayed, now_ms.saturating_add(delay)),
            };
            let own = MessageOrigin::new(queue.as_str(), place, *next, at);
            *next += 1;
            origin.unwrap_or(own)
        })
    }
}

/// A consume call (API reference 5.3.2, 5.3.4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The maximum number of messages: 1-10.
    pub max_messages: usize,
    /// The maximum bytes of bodies. The first message is returned whatever its size.
    pub max_bytes: usize,
    /// The time to wait for a first message.
    pub wait: Duration,
    /// The time until the lease ends.
    pub ack_wait: Duration,
    /// The label filter; always empty for dead letters.
    pub filter: TagFilter,
}

/// A message of a leased batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LeasedMessage {
    /// As [`NewMessage::json`].
    pub json: Bytes,
    /// The labels, for the copy beside `message`.
    pub tags: Arc<[String]>,
    /// The token that acknowledges this message. It is opaque, cannot be forged, and is valid until the lease ends.
    pub receipt: ReceiptText,
    /// Its sequence number in the stream, which never changes.
    pub sequence: u64,
    /// The number of failures before this lease.
    pub failures: u32,
    /// When it entered its stream, in milliseconds since the Unix epoch. Together with the sequence number it identifies the message,
    /// also in a stream that was restored from a backup.
    pub entered_ms: i64,
    /// Why and when it became a dead letter. `None` for other messages, and for dead letters of versions without reasons.
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
    /// Its first place, if that was another one.
    pub origin: Option<MessageOrigin>,
}

/// A receipt as text. One of the length that this server gives is kept in place, because memory of its own for each receipt costs
/// more than reading it.
#[derive(Clone, PartialEq, Eq)]
pub struct ReceiptText(Letters);

#[derive(Clone, PartialEq, Eq)]
enum Letters {
    Usual([u8; ReceiptText::USUAL]),
    Other(Box<str>),
}

impl ReceiptText {
    /// The length of the receipts of this server, in bytes.
    pub(crate) const USUAL: usize = 32;

    /// The text as bytes. Cheaper than as a text, which is checked whenever it is read.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Letters::Usual(letters) => letters,
            Letters::Other(text) => text.as_bytes(),
        }
    }
}

impl std::ops::Deref for ReceiptText {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // It was made from a text.
            Letters::Usual(letters) => std::str::from_utf8(letters).unwrap_or_default(),
            Letters::Other(text) => text,
        }
    }
}

impl From<&str> for ReceiptText {
    fn from(text: &str) -> Self {
        let usual = text.as_bytes().try_into().map(Letters::Usual);
        Self(usual.unwrap_or_else(|_| Letters::Other(text.into())))
    }
}

// Receipts are the right to acknowledge, so they stay out of logs.
impl fmt::Debug for ReceiptText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptText(…)")
    }
}

impl Serialize for ReceiptText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for ReceiptText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*Cow::<'de, str>::deserialize(deserializer)?))
    }
}

impl LeasedMessage {
    /// The id of the message, which never changes.
    pub fn id(&self, path: &GroupPath, stream: Stream) -> MessageOrigin {
        self.origin.unwrap_or_else(|| path.origin(stream, self.sequence, self.entered_ms))
    }
}

impl GroupPath {
    /// The origin of a message that has always been in this place.
    pub(crate) fn origin(&self, stream: Stream, sequence: u64, entered_ms: i64) -> MessageOrigin {
        let (owner, place) = match stream {
            Stream::Messages => (self.queue.as_str(), FirstPlace::Queue),
            Stream::DeadLetters => (self.group.as_str(), FirstPlace::DeadLetters),
        };
        MessageOrigin::new(owner, place, sequence, entered_ms)
    }
}

/// One line of an acknowledgement (API reference 5.3.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The receipt from the consume answer.
    pub receipt: ReceiptText,
    /// The status that the consumer reports.
    pub status: AckStatus,
}

/// The number of messages that an acknowledgement settled. The sum is the size of the batches it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckCounts {
    /// Messages at the beginning of the batches that are settled: successful or rejected.
    pub success: usize,
    /// Messages at the end of the batches that failed or were released.
    pub fail: usize,
}
