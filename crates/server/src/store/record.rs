//! [`Record`]: one change of what a store holds, and the values that records consist of.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    shared_buffer::BufferSize,
    store::{
        ids::{CursorId, StreamId},
        origin::MessageOrigin,
        schedule::{ScheduleProgress, ScheduleRow},
        sent_keys::SentKeys,
        settings::{Attempt, FailureCause, RetentionPolicy},
    },
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag, TagFilter},
};

/// A message in a stream or a delay queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StoredMessage {
    /// The sequence number of the message in its stream, from 1 without gaps.
    pub(crate) seq: u64,
    /// When the message entered the stream, in Unix milliseconds. In a delay queue: when its delay ends.
    pub(crate) entered_ms: i64,
    /// The `message` object of a consume answer.
    pub(crate) json: Bytes,
    /// The size of the memory of `json`, if other messages may be in it.
    pub(crate) buffer: BufferSize,
    /// The size of the body alone.
    pub(crate) body_bytes: usize,
    /// The labels.
    pub(crate) tags: Arc<[String]>,
    /// Why and when it became a dead letter.
    pub(crate) dead_letter: Option<Arc<DeadLetterInfo>>,
    /// Its first place, if that was another one.
    pub(crate) origin: Option<MessageOrigin>,
    /// The cursor of the only group that gets it: a dead letter that goes back to its group.
    pub(crate) only_for: Option<CursorId>,
}

impl StoredMessage {
    /// An estimate of the memory that the message takes, in bytes, without other messages that share its buffer.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.json.len() + self.bytes_beside_json()
    }

    /// An estimate of the memory beside the JSON, in bytes.
    pub(crate) fn bytes_beside_json(&self) -> usize {
        self.dead_letter.as_ref().map_or(160, |_| 1_536)
    }

    /// The same message in memory of its own, if it shares a buffer with others.
    pub(crate) fn alone(self: Arc<Self>) -> Arc<Self> {
        if self.buffer.is_shared() {
            let json = Bytes::copy_from_slice(&self.json);
            return Arc::new(Self { json, buffer: BufferSize::default(), ..Self::clone(&self) });
        }
        self
    }
}

/// The properties of a queue. Only its description and `max_consume_count` change. Its stream has the queue's number, its delay
/// queue the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRow {
    /// Given at creation and never used again.
    pub(crate) number: u32,
    /// The id that clients use.
    pub(crate) id: QueueId,
    /// The project that owns the queue.
    pub(crate) project: ProjectId,
    /// Unique in the project.
    pub(crate) name: String,
    /// How the queue orders and keeps messages.
    pub(crate) mode: QueueMode,
    /// Empty if none was given.
    pub(crate) description: String,
    /// The number of failures that make a dead letter; `None` without dead letters.
    pub(crate) max_consume_count: Option<u32>,
    /// The retention that the queue was created with (Kafka modes only).
    pub(crate) retention_hours: Option<u32>,
    /// In Unix milliseconds.
    pub(crate) created_ms: i64,
}

impl QueueRow {
    /// The stream of the queue's messages.
    pub(crate) fn stream(&self) -> StreamId {
        StreamId(self.number)
    }

    /// The delay queue: messages whose delay has not ended.
    pub(crate) fn delay_queue(&self) -> StreamId {
        StreamId(self.number + 1)
    }
}

/// The properties of a group that never change. Its cursor on the queue has the group's number. Its dead-letter stream and its
/// cursor on that stream have the next number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    /// Given at creation and never used again.
    pub(crate) number: u32,
    /// The queue whose messages it consumes.
    pub(crate) queue: QueueId,
    /// The id that clients use.
    pub(crate) id: GroupId,
    /// Unique in the queue.
    pub(crate) name: String,
    /// In Unix milliseconds.
    pub(crate) created_ms: i64,
    /// The first message of the queue that the group gets.
    pub(crate) start: u64,
}

impl GroupRow {
    /// The cursor on the queue's messages.
    pub(crate) fn cursor(&self) -> CursorId {
        CursorId(self.number)
    }

    /// The stream of the group's dead letters.
    pub(crate) fn dead_letters(&self) -> StreamId {
        StreamId(self.number + 1)
    }

    /// The cursor on the group's dead letters.
    pub(crate) fn dead_letter_cursor(&self) -> CursorId {
        CursorId(self.number + 1)
    }
}

/// How one lease ended, or which messages a cursor skipped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settlement {
    /// Messages that were acknowledged.
    pub(crate) done: Vec<u64>,
    /// Messages that the group's label filter skips.
    pub(crate) skipped: Vec<Range<u64>>,
    /// Messages that failed and are available again, with their number of failures.
    pub(crate) failed: Vec<(u64, u32)>,
    /// Messages that failed for the last time. Their copies enter the dead letters by [`Record::Appended`].
    pub(crate) dead: Vec<u64>,
    /// No message from here on was leased before this settlement, as far as a restart has to know.
    pub(crate) head: u64,
    /// Messages that were acknowledged in the store from which the cursor was imported. They only count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) counted: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The failures of a message that is not settled. The history is in memory only.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FailureHistory {
    /// When the message failed first, in Unix milliseconds.
    pub(crate) first_failure_ms: Option<i64>,
    /// The last cause that a consumer reported.
    pub(crate) last: Option<Arc<FailureCause>>,
    /// The leases that did not settle the message, also those that counted no failure. Behind a pointer, because every leased message
    /// has room for it and few have any.
    pub(crate) attempts: Option<Arc<Attempts>>,
}

/// The leases that did not settle a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attempts {
    /// How many there were, as far as this process knows.
    pub(crate) count: u32,
    /// The last ones in order.
    pub(crate) recent: Vec<Attempt>,
}

impl Attempts {
    /// The maximum number of attempts that are kept with their times.
    const MAX_RECENT: usize = 10;

    /// The attempts after one more.
    pub(crate) fn and(before: Option<&Self>, attempt: Attempt) -> Self {
        let (count, recent) = before.map_or((0, &[][..]), |before| (before.count, &before.recent[..]));
        let kept = &recent[recent.len().saturating_sub(Self::MAX_RECENT - 1)..];
        Self { count: count.saturating_add(1), recent: [kept, &[attempt]].concat() }
    }
}

/// One change of what a store holds. The records of a commit are applied in order, all or none.
///
/// Logs on disk contain records as JSON: the names that `serde` writes must not change, a test pins them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A queue is created, with empty streams.
    QueueCreated(QueueRow),
    /// A queue is deleted with its messages and groups.
    QueueDeleted(QueueId),
    /// A group is created.
    GroupCreated(GroupRow),
    /// A group is deleted with its dead letters.
    GroupDeleted(QueueId, GroupId),
    /// The resource tags of a queue are replaced.
    TagsSet(QueueId, Vec<QueueTag>),
    /// The label filter of a cursor is fixed.
    RuleFixed(CursorId, TagFilter),
    /// A message enters the end of a stream.
    #[serde(skip)]
    Appended(StreamId, Arc<StoredMessage>),
    /// A message enters a delay queue.
    #[serde(skip)]
    Delayed(StreamId, Arc<StoredMessage>),
    /// A message leaves its delay queue: the end of its delay and its sequence number there.
    #[serde(rename = "Unparked")]
    DelayEnded(StreamId, i64, u64),
    /// A lease ended, or a cursor skipped messages.
    Settled {
        #[serde(rename = "reader")]
        cursor: CursorId,
        /// The broker's number of the lease. Leases are in memory only.
        #[serde(skip)]
        lease: Option<u64>,
        /// The histories of the messages that failed. A store does not keep them.
        #[serde(skip)]
        histories: Vec<(u64, FailureHistory)>,
        settlement: Settlement,
    },
    /// Takes the place of a damaged commit that an operator gave up.
    #[serde(rename = "Skipped")]
    GivenUp,
    /// The retention of a queue is set.
    RetentionSet(QueueId, RetentionPolicy),
    /// Messages of this commit have deduplication keys. Keys whose window ended at or before `now_ms` are deleted.
    KeysSent {
        #[serde(rename = "now")]
        now_ms: i64,
        keys: SentKeys,
    },
    /// The description or the number of failures of a queue is changed: its row as it is from now on.
    QueueChanged(QueueRow),
    /// A schedule of a queue is added, or replaced by this one.
    ScheduleSet { queue: QueueId, row: Box<ScheduleRow>, progress: ScheduleProgress },
    /// The schedule of a queue with this name is removed.
    ScheduleRemoved(QueueId, String),
    /// Ticks of a schedule are done: how far it has come. Their messages are in the same commit, before this record.
    ScheduleTicked { queue: QueueId, name: String, progress: ScheduleProgress },
    /// The backlog of a group is purged: everything below `below` is settled for its cursor.
    Purged {
        #[serde(rename = "reader")]
        cursor: CursorId,
        below: u64,
    },
    /// The messages of a delay queue below `below` are deleted.
    #[serde(rename = "Emptied")]
    DelayQueuePurged {
        #[serde(rename = "lot")]
        delay_queue: StreamId,
        below: u64,
    },
    /// The messages of a stream below `low` are deleted. `oldest` is no later than when the first remaining one entered.
    Expired { stream: StreamId, low: u64, oldest: Option<i64> },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{FirstPlace, LastTick, MissedTicks, ScheduleSource};

    /// Logs of earlier versions have these texts.
    #[test]
    fn records_are_written_as_they_always_were() {
        let (stream, cursor) = (StreamId(2), CursorId(3));
        let settlement = Settlement {
            done: vec![1],
            skipped: std::iter::once(2..3).collect(),
            failed: vec![(4, 1)],
            dead: vec![5],
            head: 6,
            counted: 0,
        };
        let schedule = ScheduleRow {
            name: "nightly".to_owned(),
            cron: "0 2 * * *".to_owned(),
            timezone: "UTC".to_owned(),
            missed: MissedTicks::Once,
            source: ScheduleSource::Command,
            paused: false,
            body: "1".into(),
            attributes: "{}".into(),
            tags: Arc::default(),
            created_ms: 7,
        };
        let id = MessageOrigin::new("q", FirstPlace::Queue, 1, 6);
        let last = Some(LastTick { planned_ms: 5, sent_ms: 6, id });
        let progress = ScheduleProgress { done_ms: 5, last, sent: 1, missed: 0 };
        let records = [
            (Record::DelayEnded(stream, 9, 1), r#"{"Unparked":[2,9,1]}"#),
            (
                Record::Settled { cursor, lease: Some(7), histories: Vec::new(), settlement },
                r#"{"Settled":{"reader":3,"settlement":{"done":[1],"skipped":[{"start":2,"end":3}],"failed":[[4,1]],"dead":[5],"head":6}}}"#,
            ),
            (Record::GivenUp, r#""Skipped""#),
            (Record::KeysSent { now_ms: 4, keys: SentKeys::default() }, r#"{"KeysSent":{"now":4,"keys":""}}"#),
            (Record::Purged { cursor, below: 4 }, r#"{"Purged":{"reader":3,"below":4}}"#),
            (Record::DelayQueuePurged { delay_queue: stream, below: 4 }, r#"{"Emptied":{"lot":2,"below":4}}"#),
            (Record::Expired { stream, low: 4, oldest: None }, r#"{"Expired":{"stream":2,"low":4,"oldest":null}}"#),
            (Record::RuleFixed(cursor, TagFilter::default()), r#"{"RuleFixed":[3,"#),
            (
                Record::RetentionSet("q".into(), RetentionPolicy::default()),
                r#"{"RetentionSet":["q",{"retention":null,"delete_when_settled":null}]}"#,
            ),
            (Record::ScheduleRemoved("q".into(), "nightly".to_owned()), r#"{"ScheduleRemoved":["q","nightly"]}"#),
            (
                Record::ScheduleSet {
                    queue: "q".into(),
                    row: Box::new(schedule),
                    progress: ScheduleProgress::default(),
                },
                r#"{"ScheduleSet":{"queue":"q","row":{"name":"nightly","cron":"0 2 * * *","timezone":"UTC","missed":"once","source":"command","paused":false,"body":"1","attributes":"{}","tags":[],"created_ms":7},"progress":{"done_ms":0,"last":null,"sent":0,"missed":0}}}"#,
            ),
            (
                Record::ScheduleTicked { queue: "q".into(), name: "nightly".to_owned(), progress },
                r#"{"ScheduleTicked":{"queue":"q","name":"nightly","progress":{"done_ms":5,"last":{"planned_ms":5,"sent_ms":6,"id":["#,
            ),
        ];
        for (record, text) in records {
            let written = serde_json::to_string(&record).unwrap();
            assert!(written.starts_with(text), "{written}");
            let read: Record = serde_json::from_str(&written).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), written);
        }
    }
}
