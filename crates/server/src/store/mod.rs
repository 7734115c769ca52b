//! What the embedded broker keeps, and where: the `Record`s of every change, the `Store` that makes them durable,
//! and the `Snapshot` a store opens with.
//!
//! Messages live in *streams*, append-only logs numbered from 1 without gaps; *readers* are the groups' positions on
//! them. Messages that are not due yet wait in a *lot*, numbered like a stream and indexed by due time.
//! A store knows nothing of leases, rules or limits.

#[cfg(feature = "disk")]
use std::path::Path;
use std::{collections::BTreeSet, fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    broker::{RetentionPolicy, verdict::FailureCause},
    histogram::Histogram,
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag, TagFilter},
};

#[cfg(feature = "disk")]
pub mod disk;
#[cfg(feature = "disk")]
pub(crate) mod position;
#[cfg(feature = "disk")]
pub(crate) mod run;
#[cfg(feature = "disk")]
pub(crate) mod settled_page;
mod full;
pub(crate) mod memory;
mod open_error;

#[cfg(feature = "disk")]
pub(crate) use self::disk::tools::backup::Backup;
pub use self::open_error::OpenError;

/// A stream of messages, or a lot of messages that are not due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct StreamId(pub(crate) u32);

/// A group's position on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CursorId(pub(crate) u32);

/// A message in its stream or lot.
#[derive(Debug, PartialEq)]
pub(crate) struct StoredMessage {
    /// Its place, from 1.
    pub(crate) seq: u64,
    /// When it entered the stream, in Unix milliseconds; in a lot: when it is due.
    pub(crate) entered_ms: i64,
    /// The `message` object of a consume answer.
    pub(crate) json: Bytes,
    /// Size of the body alone.
    pub(crate) body_bytes: usize,
    /// The labels.
    pub(crate) tags: Arc<[String]>,
    /// Why and when it became a dead letter.
    pub(crate) dead_letter: Option<Arc<DeadLetterInfo>>,
}

impl StoredMessage {
    /// What it costs to keep in memory, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.json.len() + self.dead_letter.as_ref().map_or(160, |_| 1_536)
    }
}

/// A queue's unchanging facts. Its stream is `number`, its lot the number after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRow {
    /// Given at creation, never again.
    pub(crate) number: u32,
    /// What the API knows it by.
    pub(crate) id: QueueId,
    /// The owner.
    pub(crate) project: ProjectId,
    /// Unique in the project.
    pub(crate) name: String,
    /// How it orders and keeps messages.
    pub(crate) mode: QueueMode,
    /// Empty where none was given.
    pub(crate) description: String,
    /// Failures that make a dead letter; `None` without dead letters.
    pub(crate) max_consume_count: Option<u32>,
    /// How long messages are kept, where the queue says so itself (Kafka modes).
    pub(crate) retention_hours: Option<u32>,
    /// In Unix milliseconds.
    pub(crate) created_ms: i64,
}

impl QueueRow {
    /// The queue's messages.
    pub(crate) fn stream(&self) -> StreamId {
        StreamId(self.number)
    }

    /// Its messages that are not due.
    pub(crate) fn delay_queue(&self) -> StreamId {
        StreamId(self.number + 1)
    }
}

/// A group's unchanging facts. It reads the queue's stream as reader `number`; the number after it is its dead-letter
/// stream and the reader of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    /// Given at creation, never again.
    pub(crate) number: u32,
    /// Whose messages it consumes.
    pub(crate) queue: QueueId,
    /// What the API knows it by.
    pub(crate) id: GroupId,
    /// Unique in the queue.
    pub(crate) name: String,
    /// In Unix milliseconds.
    pub(crate) created_ms: i64,
    /// The first message it is given.
    pub(crate) start: u64,
}

impl GroupRow {
    /// Reads the queue's messages.
    pub(crate) fn cursor(&self) -> CursorId {
        CursorId(self.number)
    }

    /// The group's dead letters.
    pub(crate) fn dead_letters(&self) -> StreamId {
        StreamId(self.number + 1)
    }

    /// Reads the group's dead letters.
    pub(crate) fn dead_letter_cursor(&self) -> CursorId {
        CursorId(self.number + 1)
    }
}

/// How one lease ended, or what a reader passed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settlement {
    /// Messages acknowledged.
    pub(crate) done: Vec<u64>,
    /// Messages that the label rule passes over.
    pub(crate) skipped: Vec<Range<u64>>,
    /// Messages that failed and can be consumed again, with their failures so far.
    pub(crate) failed: Vec<(u64, u32)>,
    /// Messages that failed for the last time; their copies enter the dead letters by [`Record::Appended`].
    pub(crate) dead: Vec<u64>,
    /// Nothing from here on was handed out, as far as a restart has to know.
    pub(crate) head: u64,
}

/// What is remembered of the failures of a message that is not settled. It lives in memory alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FailureHistory {
    /// When it failed first, in Unix milliseconds.
    pub(crate) first_failure_ms: Option<i64>,
    /// What was last said about why.
    pub(crate) last: Option<Arc<FailureCause>>,
}

/// One change. Changes of one commit are applied in order, all or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A queue begins, with empty streams.
    QueueCreated(QueueRow),
    /// A queue ends with its messages and its groups.
    QueueDeleted(QueueId),
    /// A group begins.
    GroupCreated(GroupRow),
    /// A group ends with its dead letters.
    GroupDeleted(QueueId, GroupId),
    /// A queue's resource tags are these now.
    TagsSet(QueueId, Vec<QueueTag>),
    /// A reader's label rule is fixed.
    RuleFixed(CursorId, TagFilter),
    /// A message enters the end of a stream.
    #[serde(skip)]
    Appended(StreamId, Arc<StoredMessage>),
    /// A message waits in a lot until it is due.
    #[serde(skip)]
    Delayed(StreamId, Arc<StoredMessage>),
    /// A due message leaves its lot: due time and place.
    #[serde(rename = "Unparked")]
    DelayEnded(StreamId, i64, u64),
    /// A lease ended; `lease` is the broker's own number of it.
    Settled {
        #[serde(rename = "reader")]
        cursor: CursorId,
        /// Leases live in memory alone.
        #[serde(skip)]
        lease: Option<u64>,
        /// What is to be remembered of messages that failed, in memory alone.
        #[serde(skip)]
        histories: Vec<(u64, FailureHistory)>,
        settlement: Settlement,
    },
    /// A commit that was damaged and given up stood here.
    #[serde(rename = "Skipped")]
    GivenUp,
    /// What was said about how long a queue keeps its messages is this now.
    RetentionSet(QueueId, RetentionPolicy),
    /// A group's backlog was purged: everything below this place is settled for its reader.
    Purged {
        #[serde(rename = "reader")]
        cursor: CursorId,
        below: u64,
    },
    /// Messages of a lot below this place are gone.
    #[serde(rename = "Emptied")]
    DelayQueuePurged {
        #[serde(rename = "lot")]
        delay_queue: StreamId,
        below: u64,
    },
    /// Messages below `low` are gone; `oldest` is a lower bound of when the first one left entered.
    Expired { stream: StreamId, low: u64, oldest: Option<i64> },
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSnapshot {
    /// The first message still there.
    pub(crate) low: u64,
    /// The place of the next message.
    pub(crate) next: u64,
    /// When the first message still there entered.
    pub(crate) oldest: Option<i64>,
    /// When the last message entered.
    pub(crate) newest: i64,
}

/// Where a lot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelayQueueSnapshot {
    /// The place of the next message.
    pub(crate) next: u64,
    /// How many wait.
    pub(crate) count: u64,
    /// When the first is due.
    pub(crate) next_due: Option<i64>,
}

/// Where a reader stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CursorSnapshot {
    /// Nothing from here on was handed out.
    pub(crate) head: u64,
    /// Messages acknowledged so far.
    pub(crate) consumed: u64,
    /// Messages below `head` that are not settled, with their failures.
    pub(crate) ready: Vec<(u64, u32)>,
    /// The label rule.
    pub(crate) rule: Option<TagFilter>,
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The next number for a queue or group.
    pub(crate) next_number: u32,
    /// The queues in the order of their numbers.
    pub(crate) queues: Vec<QueueSnapshot>,
    /// The groups in the order of their numbers.
    pub(crate) groups: Vec<GroupSnapshot>,
}

/// A queue as it was found.
#[derive(Debug)]
pub(crate) struct QueueSnapshot {
    /// What does not change.
    pub(crate) row: QueueRow,
    /// Its resource tags in the order they were set.
    pub(crate) tags: Vec<QueueTag>,
    /// What was said about how long it keeps messages.
    pub(crate) retention: RetentionPolicy,
    /// Its messages.
    pub(crate) stream: StreamSnapshot,
    /// Those that are not due.
    pub(crate) delay_queue: DelayQueueSnapshot,
}

/// A group as it was found.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    /// What does not change.
    pub(crate) row: GroupRow,
    /// Where it stands on the queue's messages.
    pub(crate) cursor: CursorSnapshot,
    /// Its dead letters.
    pub(crate) dead_letters: StreamSnapshot,
    /// Where it stands on those.
    pub(crate) dead_letter_cursor: CursorSnapshot,
}

/// How much one read brings: so many messages and so many bytes, the first message whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadLimit {
    /// At most so many.
    pub(crate) messages: usize,
    /// At most so many bytes, as [`StoredMessage::memory_bytes`] counts them.
    pub(crate) bytes: usize,
}

/// Why a store could not do something; what it held is unchanged.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StoreError(pub(crate) Arc<dyn std::error::Error + Send + Sync>);

impl StoreError {
    pub(crate) fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

/// A message that is not on the disk as it was written. It stays there, and nobody is given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Its place in its stream or lot.
    pub(crate) seq: u64,
    /// As [`StoredMessage::entered_ms`], where that is known; of a message in a lot always.
    pub(crate) entered_ms: Option<i64>,
    /// The file that it is in.
    pub(crate) file: Arc<str>,
    /// Where it begins in the file, or the run that it belongs to.
    pub(crate) offset: u64,
    /// What is wrong with it.
    pub(crate) reason: Arc<str>,
    /// Whether the disk gave nothing back: it may at another time.
    pub(crate) is_unreadable: bool,
}

/// What a read brought.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ReadBatch {
    /// Messages in order.
    pub(crate) messages: Vec<Arc<StoredMessage>>,
    /// Messages between them that are damaged.
    pub(crate) damaged: Vec<Damaged>,
    /// All asked for that is before this place is here, or gone; `u64::MAX` when the read came to the end.
    pub(crate) until: u64,
}

/// Keeps records. Calls may block; [`Store::blocks`] says whether they have to leave the async threads.
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// Whether calls wait for a disk.
    fn blocks(&self) -> bool;

    /// Makes records durable, all or none.
    fn commit(&self, records: &[Record]) -> Result<(), StoreError>;

    /// Messages of a stream or lot from `from` on, in order of place. Damaged ones are passed over, a bounded number at a time.
    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError>;

    /// These messages of a stream as far as they are there. The places are in ascending order.
    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError>;

    /// The first messages of a lot by due time, less those to skip. With damaged ones among them there may be more.
    fn first_due(&self, delay_queue: StreamId, limit: ReadLimit, skip: &BTreeSet<u64>)
    -> Result<ReadBatch, StoreError>;

    /// When messages of a stream entered, with their places: those from `from` on, at most `count`, up to and including the first
    /// that entered after `until_ms`. Reads no bodies beyond a bounded buffer, however large the messages are. The time of a damaged
    /// message is that of the next one that can be read, so that it never expires early.
    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError>;

    /// Copies all that was committed before this call into a new directory.
    ///
    /// # Errors
    /// When there is nothing on a disk, the directory is not new, or it cannot be written.
    #[cfg(feature = "disk")]
    fn back_up(&self, _to: &Path) -> Result<Backup, StoreError> {
        Err(StoreError::new("this server keeps everything in memory: there is no data directory to copy"))
    }

    /// How long the disk took to make each commit durable.
    fn syncs(&self) -> Histogram;

    /// Whether there is work that no answer waits for.
    fn needs_maintenance(&self) -> bool;

    /// Does a bounded piece of that work; whether there is more.
    fn maintain(&self) -> Result<bool, StoreError>;

    /// Why the index did not take in what the log has, when it was last to; `None` if it did.
    fn index_error(&self) -> Option<StoreError> {
        None
    }

    /// Why messages could not be read, when the disk failed since [`Store::probe_reads`] was last content.
    fn read_error(&self) -> Option<StoreError> {
        None
    }

    /// Reads anew what could not be read; whether that, and not only something else, can be read again.
    fn probe_reads(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Why new messages are refused before anything else is; `None` while they are taken.
    fn disk_full(&self) -> Option<StoreError> {
        None
    }

    /// Whether messages could be committed, as far as that can be known without any. For a store that failed.
    fn probe(&self) -> Result<(), StoreError>;

    /// Lets go of what the store holds of the system, after tidying up if it is done in order; every later call fails.
    fn release(&self, in_order: bool) -> Result<(), StoreError>;
}

/// The first `count` entry times, up to and including the first one after `until_ms`.
fn up_to_time(times: impl Iterator<Item = (u64, i64)>, count: usize, until_ms: i64) -> Vec<(u64, i64)> {
    let mut found = Vec::new();
    for (place, entered_ms) in times.take(count) {
        found.push((place, entered_ms));
        if entered_ms > until_ms {
            break;
        }
    }
    found
}
