//! How values of the broker are written between servers, where they have no form of their own for that.
//!
//! Two versions of the program that follow each other understand each other: a new field has a default.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::{
    Deduplication, FoundIn, FoundMessage, FoundPlace, GroupList, GroupOverview, GroupStanding, LeasedMessage,
    MessageOrigin, NewMessage, PeekState, Peeked, QueueChange, QueueOverview, ReceiptText, RetentionChange,
    RetentionPolicy, Stream,
};
use dms_protocol::{
    message::DeadLetterInfo,
    queue::{ConsumerGroup, GroupId, NewQueue, ProjectId, Queue, QueueId, QueueMode},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NewQueueShape {
    name: String,
    mode: QueueMode,
    description: Option<String>,
    max_consume_count: Option<u32>,
    retention_hours: Option<u32>,
}

impl From<NewQueue> for NewQueueShape {
    fn from(queue: NewQueue) -> Self {
        let NewQueue { name, mode, description, max_consume_count, retention_hours } = queue;
        Self { name, mode, description, max_consume_count, retention_hours }
    }
}

impl From<NewQueueShape> for NewQueue {
    fn from(shape: NewQueueShape) -> Self {
        let NewQueueShape { name, mode, description, max_consume_count, retention_hours } = shape;
        Self { name, mode, description, max_consume_count, retention_hours }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct QueueShape {
    id: QueueId,
    name: String,
    mode: QueueMode,
    description: String,
    created_ms: i64,
    reservation_minutes: u64,
    max_message_bytes: u64,
    produced_messages: u64,
    group_count: u32,
    dead_letters: Option<bool>,
    max_consume_count: Option<u32>,
    kafka_topic: Option<String>,
}

impl From<Queue> for QueueShape {
    fn from(queue: Queue) -> Self {
        Self {
            id: queue.id,
            name: queue.name,
            mode: queue.mode,
            description: queue.description,
            created_ms: queue.created_ms,
            reservation_minutes: queue.reservation_minutes,
            max_message_bytes: queue.max_message_bytes,
            produced_messages: queue.produced_messages,
            group_count: queue.group_count,
            dead_letters: queue.dead_letters,
            max_consume_count: queue.max_consume_count,
            kafka_topic: queue.kafka_topic,
        }
    }
}

impl From<QueueShape> for Queue {
    fn from(shape: QueueShape) -> Self {
        let mut queue = Self::new(shape.id, shape.name, shape.mode);
        queue.description = shape.description;
        queue.created_ms = shape.created_ms;
        queue.reservation_minutes = shape.reservation_minutes;
        queue.max_message_bytes = shape.max_message_bytes;
        queue.produced_messages = shape.produced_messages;
        queue.group_count = shape.group_count;
        queue.dead_letters = shape.dead_letters;
        queue.max_consume_count = shape.max_consume_count;
        queue.kafka_topic = shape.kafka_topic;
        queue
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GroupShape {
    id: GroupId,
    name: String,
    produced_messages: u64,
    consumed_messages: u64,
    available_messages: u64,
    produced_dead_letters: Option<u64>,
    available_dead_letters: Option<u64>,
}

impl From<ConsumerGroup> for GroupShape {
    fn from(group: ConsumerGroup) -> Self {
        Self {
            id: group.id,
            name: group.name,
            produced_messages: group.produced_messages,
            consumed_messages: group.consumed_messages,
            available_messages: group.available_messages,
            produced_dead_letters: group.produced_dead_letters,
            available_dead_letters: group.available_dead_letters,
        }
    }
}

impl From<GroupShape> for ConsumerGroup {
    fn from(shape: GroupShape) -> Self {
        let mut group = Self::new(shape.id, shape.name);
        group.produced_messages = shape.produced_messages;
        group.consumed_messages = shape.consumed_messages;
        group.available_messages = shape.available_messages;
        group.produced_dead_letters = shape.produced_dead_letters;
        group.available_dead_letters = shape.available_dead_letters;
        group
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GroupsShape {
    queue_name: String,
    dead_letters: bool,
    groups: Vec<GroupShape>,
}

impl From<GroupList> for GroupsShape {
    fn from(list: GroupList) -> Self {
        let groups = list.groups.into_iter().map(GroupShape::from).collect();
        Self { queue_name: list.queue_name, dead_letters: list.dead_letters, groups }
    }
}

impl From<GroupsShape> for GroupList {
    fn from(shape: GroupsShape) -> Self {
        let groups = shape.groups.into_iter().map(ConsumerGroup::from).collect();
        Self { queue_name: shape.queue_name, dead_letters: shape.dead_letters, groups }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SentShape {
    #[serde(skip)]
    pub(super) json: Bytes,
    body_bytes: usize,
    tags: Vec<String>,
    delay: Duration,
    #[serde(default)]
    origin: Option<MessageOrigin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deduplication: Option<Box<Deduplication>>,
}

impl From<NewMessage> for SentShape {
    fn from(message: NewMessage) -> Self {
        let NewMessage { json, body_bytes, tags, delay, origin, deduplication } = message;
        Self { json, body_bytes, tags, delay, origin, deduplication }
    }
}

impl From<SentShape> for NewMessage {
    fn from(shape: SentShape) -> Self {
        let SentShape { json, body_bytes, tags, delay, origin, deduplication } = shape;
        Self { json, body_bytes, tags, delay, origin, deduplication }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeasedShape {
    #[serde(skip)]
    pub(super) json: Bytes,
    tags: Arc<[String]>,
    receipt: ReceiptText,
    sequence: u64,
    failures: u32,
    entered_ms: i64,
    dead_letter: Option<Arc<DeadLetterInfo>>,
    #[serde(default)]
    origin: Option<MessageOrigin>,
}

impl From<LeasedMessage> for LeasedShape {
    fn from(message: LeasedMessage) -> Self {
        let LeasedMessage { json, tags, receipt, sequence, failures, entered_ms, dead_letter, origin } = message;
        Self { json, tags, receipt, sequence, failures, entered_ms, dead_letter, origin }
    }
}

impl From<LeasedShape> for LeasedMessage {
    fn from(shape: LeasedShape) -> Self {
        let LeasedShape { json, tags, receipt, sequence, failures, entered_ms, dead_letter, origin } = shape;
        Self { json, tags, receipt, sequence, failures, entered_ms, dead_letter, origin }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PeekedShape {
    #[serde(skip)]
    pub(super) json: Bytes,
    id: MessageOrigin,
    sequence: u64,
    state: PeekState,
    failures: u32,
    entered_ms: i64,
    dead_letter: Option<Arc<DeadLetterInfo>>,
}

impl From<Peeked> for PeekedShape {
    fn from(message: Peeked) -> Self {
        let Peeked { id, sequence, json, state, failures, entered_ms, dead_letter } = message;
        Self { json, id, sequence, state, failures, entered_ms, dead_letter }
    }
}

impl From<PeekedShape> for Peeked {
    fn from(shape: PeekedShape) -> Self {
        let PeekedShape { json, id, sequence, state, failures, entered_ms, dead_letter } = shape;
        Self { id, sequence, json, state, failures, entered_ms, dead_letter }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FoundShape {
    complete: bool,
    pub(super) places: Vec<FoundPlaceShape>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FoundPlaceShape {
    #[serde(skip)]
    pub(super) json: Bytes,
    queue: QueueId,
    queue_name: String,
    found_in: FoundIn,
    sequence: u64,
    entered_ms: i64,
    dead_letter: Option<Arc<DeadLetterInfo>>,
    groups: Vec<GroupStanding>,
}

impl From<FoundMessage> for FoundShape {
    fn from(found: FoundMessage) -> Self {
        let place = |place: FoundPlace| {
            let FoundPlace { queue, queue_name, found_in, sequence, entered_ms, json, dead_letter, groups } = place;
            FoundPlaceShape { json, queue, queue_name, found_in, sequence, entered_ms, dead_letter, groups }
        };
        Self { complete: found.complete, places: found.places.into_iter().map(place).collect() }
    }
}

impl From<FoundShape> for FoundMessage {
    fn from(shape: FoundShape) -> Self {
        let place = |shape: FoundPlaceShape| {
            let FoundPlaceShape { json, queue, queue_name, found_in, sequence, entered_ms, dead_letter, groups } =
                shape;
            FoundPlace { queue, queue_name, found_in, sequence, entered_ms, json, dead_letter, groups }
        };
        Self { complete: shape.complete, places: shape.places.into_iter().map(place).collect() }
    }
}

/// In JSON, "not changed" and "changed to nothing" would both be `null`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RetentionShape {
    retention: Vec<Option<Duration>>,
    delete_when_settled: Vec<Option<bool>>,
}

impl From<RetentionChange> for RetentionShape {
    fn from(change: RetentionChange) -> Self {
        Self {
            retention: change.retention.into_iter().collect(),
            delete_when_settled: change.delete_when_settled.into_iter().collect(),
        }
    }
}

impl From<RetentionShape> for RetentionChange {
    fn from(shape: RetentionShape) -> Self {
        Self {
            retention: shape.retention.into_iter().next(),
            delete_when_settled: shape.delete_when_settled.into_iter().next(),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum StreamShape {
    Messages,
    DeadLetters,
}

impl From<Stream> for StreamShape {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Messages => Self::Messages,
            Stream::DeadLetters => Self::DeadLetters,
        }
    }
}

impl From<StreamShape> for Stream {
    fn from(shape: StreamShape) -> Self {
        match shape {
            StreamShape::Messages => Self::Messages,
            StreamShape::DeadLetters => Self::DeadLetters,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OverviewShape {
    project: ProjectId,
    queue: QueueShape,
    retention: Duration,
    delete_when_settled: bool,
    retention_set: RetentionPolicy,
    entered: u64,
    entered_per_second: f64,
    delayed: u64,
    damaged_delayed: u64,
    groups: Vec<GroupOverviewShape>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupOverviewShape {
    group: GroupShape,
    in_flight: u64,
    leases: u64,
    consumed_per_second: f64,
    polls: u64,
    expired_unread: u64,
    expired_dead_letters: u64,
    damaged: u64,
    damaged_dead_letters: u64,
}

impl From<QueueOverview> for OverviewShape {
    fn from(queue: QueueOverview) -> Self {
        let group = |group: GroupOverview| GroupOverviewShape {
            group: group.group.into(),
            in_flight: group.in_flight,
            leases: group.leases,
            consumed_per_second: group.consumed_per_second,
            polls: group.polls,
            expired_unread: group.expired_unread,
            expired_dead_letters: group.expired_dead_letters,
            damaged: group.damaged,
            damaged_dead_letters: group.damaged_dead_letters,
        };
        Self {
            project: queue.project,
            queue: queue.queue.into(),
            retention: queue.retention,
            delete_when_settled: queue.delete_when_settled,
            retention_set: queue.retention_set,
            entered: queue.entered,
            entered_per_second: queue.entered_per_second,
            delayed: queue.delayed,
            damaged_delayed: queue.damaged_delayed,
            groups: queue.groups.into_iter().map(group).collect(),
        }
    }
}

impl From<OverviewShape> for QueueOverview {
    fn from(shape: OverviewShape) -> Self {
        let group = |shape: GroupOverviewShape| GroupOverview {
            group: shape.group.into(),
            in_flight: shape.in_flight,
            leases: shape.leases,
            consumed_per_second: shape.consumed_per_second,
            polls: shape.polls,
            expired_unread: shape.expired_unread,
            expired_dead_letters: shape.expired_dead_letters,
            damaged: shape.damaged,
            damaged_dead_letters: shape.damaged_dead_letters,
        };
        Self {
            project: shape.project,
            queue: shape.queue.into(),
            retention: shape.retention,
            delete_when_settled: shape.delete_when_settled,
            retention_set: shape.retention_set,
            entered: shape.entered,
            entered_per_second: shape.entered_per_second,
            delayed: shape.delayed,
            damaged_delayed: shape.damaged_delayed,
            groups: shape.groups.into_iter().map(group).collect(),
        }
    }
}

/// As [`QueueChange`]. JSON does not distinguish a value that is absent from one that is absent inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct QueueChangeShape {
    description: Option<String>,
    changes_max_consume_count: bool,
    max_consume_count: Option<u32>,
    retention: RetentionShape,
}

impl From<QueueChange> for QueueChangeShape {
    fn from(change: QueueChange) -> Self {
        let QueueChange { description, max_consume_count, retention } = change;
        Self {
            description,
            changes_max_consume_count: max_consume_count.is_some(),
            max_consume_count: max_consume_count.flatten(),
            retention: retention.into(),
        }
    }
}

impl From<QueueChangeShape> for QueueChange {
    fn from(shape: QueueChangeShape) -> Self {
        Self {
            description: shape.description,
            max_consume_count: shape.changes_max_consume_count.then_some(shape.max_consume_count),
            retention: shape.retention.into(),
        }
    }
}
