//! Sending, consuming and acknowledging: what a caller passes to the broker and gets from it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::broker::Verdict;
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId, TagFilter},
};

/// Where a consume or an acknowledgement goes: a group of a queue of a project.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupPath {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The group.
    pub group: GroupId,
}

/// A message that passed the request's checks, ready to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// The `message` object of a consume answer as JSON text: `{"body":…,"attributes":{…}}` plus `,"tags":[…]` where
    /// there are labels. It is spliced into answers as it is.
    pub json: Bytes,
    /// Size of the body's JSON text in bytes: what counts towards 524 288.
    pub body_bytes: usize,
    /// The labels.
    pub tags: Vec<String>,
    /// How long it stays invisible.
    pub delay: Duration,
}

/// A consume call (API reference 5.3.2, 5.3.4).
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRequest {
    /// At most this many messages: 1-10.
    pub max_messages: usize,
    /// At most this many bytes of bodies; the first message is given whatever its size.
    pub max_bytes: usize,
    /// How long to wait for a first message.
    pub wait: Duration,
    /// How long the batch may stay unacknowledged.
    pub ack_wait: Duration,
    /// The label rule; always empty for dead letters.
    pub filter: TagFilter,
}

/// One message of a leased batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LeasedMessage {
    /// As [`NewMessage::json`].
    pub json: Bytes,
    /// The labels, for the copy beside `message`.
    pub tags: Arc<[String]>,
    /// The token that acknowledges this message: opaque, unforgeable, good until the lease ends.
    pub receipt: String,
    /// Its place in the stream: the same each time it is leased.
    pub sequence: u64,
    /// Failed consumptions before this one.
    pub failures: u32,
    /// When it entered its stream, in milliseconds since the Unix epoch: with the place it tells a message from any other,
    /// also from one at the same place of a stream that was restored from a backup.
    pub entered_ms: i64,
    /// Why and when it became a dead letter; `None` for one of before there were reasons, and for other messages.
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
}

/// One line of an acknowledgement (API reference 5.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The token from the consume answer.
    pub receipt: String,
    /// What is said of the message.
    pub verdict: Verdict,
}

/// What an acknowledgement settled; the sum is the size of the batches it named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckCounts {
    /// How many at the beginning of the batch are settled: done or rejected.
    pub success: usize,
    /// How many at its end failed or were released.
    pub fail: usize,
}
