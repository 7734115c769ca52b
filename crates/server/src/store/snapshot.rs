//! [`Snapshot`]: everything a store held when it was opened, except messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{
    ids::CursorId,
    record::{GroupRow, QueueRow},
    schedule::ScheduleSnapshot,
    sent_keys::SentKeys,
    settings::RetentionPolicy,
};
use dms_protocol::queue::{ProjectId, QueueTag, TagFilter};

/// The messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSnapshot {
    /// The sequence number of the first message.
    pub(crate) low: u64,
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// When the first message entered.
    pub(crate) oldest: Option<i64>,
    /// When the last message entered.
    pub(crate) newest: i64,
}

/// The messages of a delay queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelayQueueSnapshot {
    /// The sequence number of the next message.
    pub(crate) next: u64,
    /// The number of messages.
    pub(crate) count: u64,
    /// When the first delay ends.
    pub(crate) next_due: Option<i64>,
}

/// The position of a group on a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CursorSnapshot {
    /// No message from here on was leased.
    pub(crate) head: u64,
    /// The number of messages acknowledged so far.
    pub(crate) consumed: u64,
    /// Messages below `head` that are not settled, with their number of failures.
    pub(crate) ready: Vec<(u64, u32)>,
    /// The label filter, if it is fixed.
    pub(crate) rule: Option<TagFilter>,
}

/// Everything a store held when it was opened, except messages.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The next number for a queue or group.
    pub(crate) next_number: u32,
    /// The queues in the order of their numbers.
    pub(crate) queues: Vec<QueueSnapshot>,
    /// The groups in the order of their numbers.
    pub(crate) groups: Vec<GroupSnapshot>,
    /// The deduplication keys of sent messages. Of equal ones the last window counts. Their queue may have been deleted.
    pub(crate) keys: Vec<SentKeys>,
    /// The leases that the owner before handed over.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only stores in PostgreSQL change their owner"))]
    pub(crate) leases: Vec<LeaseSnapshot>,
}

/// A lease that one owner hands over to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseSnapshot {
    /// The project of the queue.
    pub(crate) project: ProjectId,
    /// The cursor of the group.
    pub(crate) cursor: CursorId,
    /// The secrets of the receipts, as text.
    pub(crate) receipts: String,
    /// The sequence numbers of the messages in the order in which they were leased.
    pub(crate) seqs: Vec<u64>,
    /// The time until the lease ends. The clocks of two servers are never compared, so the hand-over itself does not count.
    pub(crate) left: Duration,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct QueueSnapshot {
    /// The properties. Only the description and `max_consume_count` change.
    pub(crate) row: QueueRow,
    /// The resource tags in the order they were set.
    pub(crate) tags: Vec<QueueTag>,
    /// The retention that was set while the server ran.
    pub(crate) retention: RetentionPolicy,
    /// The schedules that send to the queue, by name.
    pub(crate) schedules: Vec<ScheduleSnapshot>,
    /// The queue's messages.
    pub(crate) stream: StreamSnapshot,
    /// The messages whose delay has not ended.
    pub(crate) delay_queue: DelayQueueSnapshot,
}

/// A group.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    /// The properties that never change.
    pub(crate) row: GroupRow,
    /// Its position on the queue's messages.
    pub(crate) cursor: CursorSnapshot,
    /// Its dead letters.
    pub(crate) dead_letters: StreamSnapshot,
    /// Its position on the dead letters.
    pub(crate) dead_letter_cursor: CursorSnapshot,
}
