//! The overview of queues and groups, and peeked messages: extensions of this project's server.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{number, optional_number, queues::mode, text};
use crate::{
    message::{Attributes, Body, DeadLetterInfo, MessageId},
    queue::{ConsumerGroup, GroupId, Queue, QueueId},
};

/// A queue with its groups. Values that the service does not report are `None`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueOverview {
    /// The queue.
    pub queue: Queue,
    /// How long it keeps messages.
    pub retention: Option<Duration>,
    /// Whether messages are deleted as soon as every group has settled them.
    pub delete_when_settled: Option<bool>,
    /// Messages whose delay has not ended. They are waiting for every group.
    pub delayed: Option<u64>,
    /// Messages that were ever sent to it.
    pub total_produced: Option<u64>,
    /// Messages per second that are sent to it, over the last 10 to 15 seconds.
    pub produced_per_second: Option<f64>,
    /// The groups in the order of their creation.
    pub groups: Vec<GroupOverview>,
}

/// A group of a [`QueueOverview`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupOverview {
    /// The group with its counters; `available_messages` is its backlog without leased messages.
    pub group: ConsumerGroup,
    /// Messages that are leased.
    pub leased: Option<u64>,
    /// Messages that are set aside because they are damaged on the server's disk.
    pub damaged: Option<u64>,
    /// The age of the oldest message that is leased or available; `None` also if there is none.
    pub oldest_age: Option<Duration>,
    /// Consume calls that are waiting for messages.
    pub waiting_polls: Option<u64>,
    /// Messages per second that the group acknowledges, over the last 10 to 15 seconds.
    pub consumed_per_second: Option<f64>,
}

impl GroupOverview {
    /// The overview of a group of which only the documented counters are known.
    pub(crate) fn documented(group: ConsumerGroup) -> Self {
        Self { group, leased: None, damaged: None, oldest_age: None, waiting_polls: None, consumed_per_second: None }
    }
}

/// A message that was shown without being leased.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "PeekedBody")]
#[non_exhaustive]
pub struct PeekedMessage {
    /// Its id at the server; see [`message_id`](Self::message_id). Servers of version 0.1.0 tell none.
    pub id: Option<MessageId>,
    /// Its sequence number. Pages begin at one.
    pub sequence: u64,
    /// Its state for the group.
    pub state: PeekState,
    /// The number of failed consumptions so far.
    pub failures: u32,
    /// When it was sent, its delay ended or it became a dead letter, in milliseconds since the Unix epoch.
    pub entered_ms: Option<i64>,
    /// Why and when it became a dead letter.
    pub dead_letter: Option<DeadLetterInfo>,
    /// The body.
    pub body: Body,
    /// The attributes.
    pub attributes: Attributes,
    /// The labels.
    pub tags: Vec<String>,
}

impl PeekedMessage {
    /// The id that a send returned for this message, or for the message that it is a copy of.
    pub fn message_id(&self) -> Option<MessageId> {
        MessageId::of(&self.attributes, self.id.as_ref())
    }
}

/// The state of a [`PeekedMessage`] for its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeekState {
    /// It can be consumed.
    Available,
    /// It is leased for this much longer.
    Leased(Duration),
    /// It becomes available after this time.
    Delayed(Duration),
}

impl PeekState {
    /// `available`, `leased` or `delayed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Leased(_) => "leased",
            Self::Delayed(_) => "delayed",
        }
    }
}

#[derive(Deserialize)]
struct QueueBody {
    id: QueueId,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    description: String,
    #[serde(default, deserialize_with = "text")]
    queue_mode: String,
    #[serde(default, deserialize_with = "number")]
    created: u64,
    redrive_policy: Option<String>,
    #[serde(default, deserialize_with = "optional_number")]
    max_consume_count: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    max_msg_size_byte: u64,
    kafka_topic: Option<String>,
    #[serde(default, deserialize_with = "optional_number")]
    retention_ms: Option<u64>,
    delete_when_settled: Option<bool>,
    #[serde(default, deserialize_with = "number")]
    produced_messages: u64,
    #[serde(default, deserialize_with = "optional_number")]
    delayed_messages: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    total_produced_messages: Option<u64>,
    produced_per_second: Option<f64>,
    #[serde(default)]
    groups: Vec<GroupBody>,
}

#[derive(Deserialize)]
struct GroupBody {
    id: GroupId,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "number")]
    available_messages: u64,
    #[serde(default, deserialize_with = "optional_number")]
    leased_messages: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    consumed_messages: u64,
    #[serde(default, deserialize_with = "optional_number")]
    available_deadletters: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    produced_deadletters: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    damaged_messages: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    oldest_age_ms: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    waiting_polls: Option<u64>,
    consumed_per_second: Option<f64>,
}

impl From<QueueBody> for QueueOverview {
    fn from(body: QueueBody) -> Self {
        let mut queue = Queue::new(body.id, body.name, mode(&body.queue_mode));
        queue.description = body.description;
        queue.created_ms = i64::try_from(body.created).unwrap_or(i64::MAX);
        queue.reservation_minutes = body.retention_ms.unwrap_or(0) / 60_000;
        queue.produced_messages = body.produced_messages;
        queue.group_count = u32::try_from(body.groups.len()).unwrap_or(u32::MAX);
        queue.dead_letters = body.redrive_policy.map(|policy| policy == "enable");
        queue.max_consume_count = body.max_consume_count.and_then(|count| u32::try_from(count).ok());
        queue.max_message_bytes = body.max_msg_size_byte;
        queue.kafka_topic = body.kafka_topic;
        let produced = body.produced_messages;
        Self {
            queue,
            retention: body.retention_ms.map(Duration::from_millis),
            delete_when_settled: body.delete_when_settled,
            delayed: body.delayed_messages,
            total_produced: body.total_produced_messages,
            produced_per_second: body.produced_per_second,
            groups: body.groups.into_iter().map(|group| group.overview(produced)).collect(),
        }
    }
}

impl GroupBody {
    fn overview(self, produced: u64) -> GroupOverview {
        let mut group = ConsumerGroup::new(self.id, self.name);
        group.produced_messages = produced;
        group.consumed_messages = self.consumed_messages;
        group.available_messages = self.available_messages;
        group.produced_dead_letters = self.produced_deadletters;
        group.available_dead_letters = self.available_deadletters;
        GroupOverview {
            group,
            leased: self.leased_messages,
            damaged: self.damaged_messages,
            oldest_age: self.oldest_age_ms.map(Duration::from_millis),
            waiting_polls: self.waiting_polls,
            consumed_per_second: self.consumed_per_second,
        }
    }
}

/// Reads a page of an overview, and where the next one begins.
pub(crate) fn decode_overview(body: &[u8]) -> Result<(Vec<QueueOverview>, Option<QueueId>), serde_json::Error> {
    #[derive(Deserialize)]
    struct Overview {
        queues: Vec<QueueBody>,
        next_marker: Option<QueueId>,
    }
    let overview: Overview = serde_json::from_slice(body)?;
    Ok((overview.queues.into_iter().map(QueueOverview::from).collect(), overview.next_marker))
}

/// A message as a server shows it, in its own text, because it may be one that cannot be read.
#[derive(Deserialize)]
pub(crate) struct PeekedBody {
    id: Option<String>,
    sequence: u64,
    #[serde(default, deserialize_with = "text")]
    state: String,
    #[serde(default, deserialize_with = "optional_number")]
    left_ms: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    failures: u64,
    #[serde(default)]
    entered_ms: Option<i64>,
    #[serde(default)]
    dead_letter: Option<Box<RawValue>>,
    message: Box<RawValue>,
}

#[derive(Deserialize)]
struct MessageBody {
    body: Box<RawValue>,
    #[serde(default)]
    attributes: Attributes,
    #[serde(default)]
    tags: Vec<String>,
}

impl From<PeekedBody> for PeekedMessage {
    /// A message that cannot be read keeps its text and the reason, so that one of them does not hide the others.
    fn from(peeked: PeekedBody) -> Self {
        let text = peeked.message.get();
        let (body, attributes, tags) = match serde_json::from_str::<MessageBody>(text) {
            Ok(MessageBody { body, attributes, tags }) => {
                (Body::trusted(Bytes::copy_from_slice(body.get().as_bytes())), attributes, tags)
            }
            Err(error) => {
                let body = Body::undecodable(Bytes::copy_from_slice(text.as_bytes()), &error.to_string());
                (body, Attributes::new(), Vec::new())
            }
        };
        let left = Duration::from_millis(peeked.left_ms.unwrap_or(0));
        Self {
            id: peeked.id.map(MessageId::new),
            sequence: peeked.sequence,
            state: match peeked.state.as_str() {
                "leased" => PeekState::Leased(left),
                "delayed" => PeekState::Delayed(left),
                _ => PeekState::Available,
            },
            failures: u32::try_from(peeked.failures).unwrap_or(u32::MAX),
            entered_ms: peeked.entered_ms,
            dead_letter: peeked.dead_letter.and_then(|info| serde_json::from_str(info.get()).ok()),
            body,
            attributes,
            tags,
        }
    }
}

/// Reads a page of peeked messages.
pub(crate) fn decode_peeked(body: &[u8]) -> Result<Vec<PeekedMessage>, serde_json::Error> {
    serde_json::from_slice(body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_message_that_cannot_be_read_does_not_hide_the_others() {
        let page = r#"[{"sequence":1,"state":"available","failures":0,"message":{"body":1,"attributes":{"a":1}}},
            {"sequence":2,"state":"leased","left_ms":7,"failures":1,"message":{"body":2,"attributes":{"who":"\ud83d"}},"dead_letter":7},
            {"sequence":3,"state":"new","failures":2,"message":[],
             "dead_letter":{"reason":"failed","attempts":3,"last_failure":5}}]"#;
        let shown = decode_peeked(page.as_bytes()).unwrap();
        assert_eq!((shown[0].body.as_str(), shown[0].body.fault()), ("1", None));
        assert!(shown[2].body.fault().is_some() && shown[2].body.as_bytes()[..] == b"[]"[..]);
        assert_eq!((shown[2].sequence, shown[2].dead_letter.as_ref().unwrap().attempts), (3, 3));
        assert_eq!((shown[1].state, &shown[1].dead_letter), (PeekState::Leased(Duration::from_millis(7)), &None));
        assert_eq!(shown[2].state.as_str(), "available");
    }

    #[test]
    fn an_overview_is_read_with_tolerance() {
        let body = br#"{"time":1,"queues":[{"id":"q","name":"orders","more":1,"produced_messages":"3","groups":[{"id":"g","available_messages":2}]}]}"#;
        let (queues, next) = decode_overview(body).unwrap();
        assert_eq!(next, None);
        assert_eq!((queues[0].queue.produced_messages, queues[0].delayed), (3, None));
        let group = &queues[0].groups[0];
        assert_eq!((group.group.available_messages, group.leased, group.oldest_age), (2, None, None));
    }
}
