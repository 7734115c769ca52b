//! What an operator sees of single messages, and of a backup.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId},
};

/// What the server shows of a message without leasing it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peeked {
    /// Its place in the stream; of a delayed message, which has none yet, its place among those, counted from 2^40.
    pub sequence: u64,
    /// As [`NewMessage::json`].
    pub json: Bytes,
    /// Where it stands for the group.
    pub state: PeekState,
    /// Failed consumptions so far.
    pub failures: u32,
    /// When it was sent (or became due, or became a dead letter), in milliseconds since the Unix epoch.
    pub entered_ms: i64,
    /// As [`LeasedMessage::dead_letter`].
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
}

/// A message that is not on the disk as it was written. It is set aside: those behind it are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedMessage {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: String,
    /// The group that came upon it; none where it was delayed.
    pub group: Option<GroupId>,
    /// That group's name.
    pub group_name: Option<String>,
    /// What kind of message it is.
    pub of: DamagedIn,
    /// Its place there.
    pub sequence: u64,
    /// The file that it is in.
    pub file: String,
    /// Where it begins in the file, as far as that is known.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A copy of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The number of the last commit in it.
    pub commit: u64,
    /// How many files it has.
    pub files: usize,
    /// How large they are together.
    pub bytes: u64,
}

/// Among what a damaged message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedIn {
    /// The messages of a queue.
    Messages,
    /// The dead letters of a group.
    DeadLetters,
    /// Messages that were not due.
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

/// Where a message stands for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekState {
    /// It can be consumed.
    Available,
    /// It is in a batch whose lease lasts this much longer.
    Leased(Duration),
    /// It becomes visible after this time.
    Delayed(Duration),
}

/// The number of messages that a purge deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages, including leased ones.
    pub messages: u64,
    /// Messages whose delay had not ended.
    pub delayed: u64,
}
