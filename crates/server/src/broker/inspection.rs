//! Single messages as operators see them: peeked, found by id, or damaged. Also the results of purges and backups.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{Attempt, FailureCause, MessageOrigin};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId},
};

/// A message as it is shown without being leased.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Peeked {
    /// Its sequence number in the stream. A delayed message has none yet; its number among the delayed messages is shown, counted from 2^40.
    pub sequence: u64,
    /// As [`NewMessage::json`](crate::broker::NewMessage::json).
    pub json: Bytes,
    /// Its state for the group.
    pub state: PeekState,
    /// The number of failures so far.
    pub failures: u32,
    /// When it was sent, its delay ended or it became a dead letter, in milliseconds since the Unix epoch.
    pub entered_ms: i64,
    /// As [`LeasedMessage::dead_letter`](crate::broker::LeasedMessage::dead_letter).
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
    /// Its id.
    pub id: MessageOrigin,
}

/// The places where a message and its copies are.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundMessage {
    /// Whether everything was searched.
    pub complete: bool,
    /// The places.
    pub places: Vec<FoundPlace>,
}

/// One place of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundPlace {
    /// The queue.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: String,
    /// The kind of place.
    pub found_in: FoundIn,
    /// Its sequence number there.
    pub sequence: u64,
    /// When it entered, in Unix milliseconds. In a delay queue: when its delay ends.
    pub entered_ms: i64,
    /// As [`NewMessage::json`](crate::broker::NewMessage::json).
    pub json: Bytes,
    /// As [`LeasedMessage::dead_letter`](crate::broker::LeasedMessage::dead_letter).
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
    /// Its state for each group; for a dead letter, only for its group.
    pub groups: Vec<GroupStanding>,
}

/// The kind of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FoundIn {
    /// A queue.
    Queue,
    /// The delayed messages of a queue.
    Delayed,
    /// The dead letters of a group.
    DeadLetters,
}

/// The state of a message for a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStanding {
    /// The group.
    pub group: GroupId,
    /// The group's name.
    pub name: String,
    /// The state.
    pub standing: Standing,
    /// The number of failures so far.
    pub failures: u32,
    /// When it failed first, in Unix milliseconds. `None` if it has not failed, or is not known: the server keeps it in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure_ms: Option<i64>,
    /// The last failure, as far as its consumer reported it. It is kept as long as `first_failure_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Arc<FailureCause>>,
    /// When the lease of now began, in Unix milliseconds. `None` if it is not leased, or the lease began on another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_since_ms: Option<i64>,
    /// How often consumers got it, the lease of now included. Deliveries that counted no failure are known since the server started.
    #[serde(default)]
    pub handed_out: u32,
    /// The last leases that did not settle it, in order: at most 10, since the server started.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
}

/// The state of a message for one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It can be consumed.
    Available,
    /// It is leased for this much longer.
    Leased(Duration),
    /// It was acknowledged, or became a dead letter.
    Settled,
    /// The label filter skips it, or it is for another group.
    Skipped,
    /// It is damaged and set aside.
    Damaged,
}

/// A damaged message. It is set aside, and later messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DamagedMessage {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: String,
    /// The group that found it. `None` for a delayed message.
    pub group: Option<GroupId>,
    /// The name of that group.
    pub group_name: Option<String>,
    /// The kind of message.
    pub of: DamagedIn,
    /// Its sequence number there.
    pub sequence: u64,
    /// The file that it is in.
    pub file: String,
    /// Where it begins in the file, as far as that is known.
    pub offset: u64,
    /// Why it cannot be read.
    pub reason: String,
}

/// A backup of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackedUp {
    /// The number of the last commit in it.
    pub commit: u64,
    /// The number of its files.
    pub files: usize,
    /// The size of its files.
    pub bytes: u64,
}

/// The messages that a damaged message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DamagedIn {
    /// The messages of a queue.
    Messages,
    /// The dead letters of a group.
    DeadLetters,
    /// Delayed messages.
    Delayed,
}

impl DamagedIn {
    /// `messages`, `deadletters` or `delayed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::DeadLetters => "deadletters",
            Self::Delayed => "delayed",
        }
    }
}

/// The state of a message for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeekState {
    /// It can be consumed.
    Available,
    /// It is leased for this much longer.
    Leased(Duration),
    /// It becomes available after this time.
    Delayed(Duration),
}

/// The number of messages that a purge deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Messages, including leased ones.
    pub messages: u64,
    /// Messages whose delay had not ended.
    pub delayed: u64,
}
