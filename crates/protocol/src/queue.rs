//! Queues and consumer groups: ids, settings, and label filters.
//!
//! These are plain values. [`limits`](crate::limits) has the rules for names and counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares the type of an id, an opaque text.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Wraps an id of the service.
            pub fn new(id: impl Into<Box<str>>) -> Self {
                Self(id.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self::new(id)
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self::new(id)
            }
        }
    };
}

identifier! {
    /// The id of a project, which owns queues: `{project_id}` in the paths of the API.
    ProjectId
}
identifier! {
    /// The id of a queue: a UUID that the service assigns at creation.
    QueueId
}
identifier! {
    /// The id of a consumer group: `g-` and a UUID, which the service assigns at creation.
    GroupId
}

/// One of the two streams that a group consumes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The queue's messages. The default.
    #[default]
    Messages,
    /// The group's dead letters.
    DeadLetters,
}

/// The source of messages: one stream of a group of a queue. Messages are consumed from it and acknowledged to it.
///
/// # Examples
/// ```
/// use dms_protocol::queue::{SourcePath, Stream};
///
/// let queue = "9bf46390-38a2-462d-b392-4d5b2d519c55";
/// let group = "g-5b0cb7a8-e1f2-4a9c-8a53-0f4f6c3a7d11";
/// let source = SourcePath::dead_letters(queue, group);
/// assert_eq!((source.queue.as_str(), source.stream), (queue, Stream::DeadLetters));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourcePath {
    /// The queue.
    pub queue: QueueId,
    /// The consumer group.
    pub group: GroupId,
    /// The messages or the dead letters.
    pub stream: Stream,
}

impl SourcePath {
    /// The messages of a group.
    pub fn messages(queue: impl Into<QueueId>, group: impl Into<GroupId>) -> Self {
        Self { queue: queue.into(), group: group.into(), stream: Stream::Messages }
    }

    /// The dead letters of a group.
    pub fn dead_letters(queue: impl Into<QueueId>, group: impl Into<GroupId>) -> Self {
        Self { stream: Stream::DeadLetters, ..Self::messages(queue, group) }
    }
}

/// How a queue orders and keeps its messages (API reference 5.1.1, `queue_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum QueueMode {
    /// High concurrency, with order within partitions only. The default.
    #[default]
    #[serde(rename = "NORMAL")]
    Normal,
    /// Strict first-in first-out order, in one partition.
    #[serde(rename = "FIFO")]
    Fifo,
    /// A Kafka topic whose replicas are flushed synchronously; no dead letters, delays or labels.
    #[serde(rename = "KAFKA_HA")]
    KafkaHa,
    /// A Kafka topic whose replicas are flushed asynchronously; no dead letters, delays or labels.
    #[serde(rename = "KAFKA_HT")]
    KafkaHt,
}

impl QueueMode {
    /// The word of the API for this mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::KafkaHa => "KAFKA_HA",
            Self::KafkaHt => "KAFKA_HT",
        }
    }

    /// Returns whether this is one of the two Kafka modes.
    pub fn is_kafka(self) -> bool {
        matches!(self, Self::KafkaHa | Self::KafkaHt)
    }
}

impl fmt::Display for QueueMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The settings of a new queue (API reference 5.1.1). The default quota of a project is 30 queues.
///
/// # Examples
/// ```
/// use dms_protocol::queue::{NewQueue, QueueMode};
///
/// let queue = NewQueue::new("orders").mode(QueueMode::Fifo).dead_letters_after(5).description("orders of the shop");
/// assert_eq!((queue.mode.as_str(), queue.max_consume_count), ("FIFO", Some(5)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewQueue {
    /// The name, unique in the project, 1-64 of `A-Z a-z 0-9 _ -`. It cannot be changed.
    pub name: String,
    /// The mode; `NORMAL` by default.
    pub mode: QueueMode,
    /// Free text of at most 160 characters without `<` and `>`.
    pub description: Option<String>,
    /// The failed consumptions (1-100) after which a message becomes a dead letter. `None` disables dead letters
    /// (`redrive_policy: disable`), so that a failing message is redelivered without end.
    pub max_consume_count: Option<u32>,
    /// The retention of messages, 1-72 hours. Kafka modes only.
    pub retention_hours: Option<u32>,
}

impl NewQueue {
    /// A `NORMAL` queue without dead letters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the mode; `NORMAL` by default. It cannot be changed later.
    pub fn mode(mut self, mode: QueueMode) -> Self {
        self.mode = mode;
        self
    }

    /// Enables dead letters after `count` failed consumptions (1-100); off by default. Kafka modes have no dead letters.
    pub fn dead_letters_after(mut self, count: u32) -> Self {
        self.max_consume_count = Some(count);
        self
    }

    /// Sets the description, at most 160 characters without `<` and `>`; empty by default.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Sets the retention of a Kafka queue, in hours (1-72). Queues of other modes cannot have one.
    pub fn retention_hours(mut self, hours: u32) -> Self {
        self.retention_hours = Some(hours);
        self
    }
}

/// A queue (API reference 5.1.2, 5.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// The id.
    pub id: QueueId,
    /// The name given at creation.
    pub name: String,
    /// The mode. Unknown modes read as `NORMAL`.
    pub mode: QueueMode,
    /// The description, which may be empty.
    pub description: String,
    /// When the queue was created, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// The retention of messages, in minutes (4320 = 72 hours).
    pub reservation_minutes: u64,
    /// The most bytes of messages in one request (524 288).
    pub max_message_bytes: u64,
    /// The messages in the queue, without expired ones, but with settled ones.
    pub produced_messages: u64,
    /// The number of consumer groups.
    pub group_count: u32,
    /// Whether dead letters are enabled, if the call requested it.
    pub dead_letters: Option<bool>,
    /// The failed consumptions after which a message becomes a dead letter, if the call requested it.
    pub max_consume_count: Option<u32>,
    /// The topic's name for native Kafka clients; Kafka modes only.
    pub kafka_topic: Option<String>,
}

impl Queue {
    /// A queue with these values and defaults otherwise.
    pub fn new(id: QueueId, name: impl Into<String>, mode: QueueMode) -> Self {
        Self {
            id,
            name: name.into(),
            mode,
            description: String::new(),
            created_ms: 0,
            reservation_minutes: 0,
            max_message_bytes: 0,
            produced_messages: 0,
            group_count: 0,
            dead_letters: None,
            max_consume_count: None,
            kafka_topic: None,
        }
    }
}

/// A newly created queue (API reference 5.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedQueue {
    /// The id.
    pub id: QueueId,
    /// The name.
    pub name: String,
    /// The topic's name for native Kafka clients; Kafka modes only.
    pub kafka_topic: Option<String>,
}

impl CreatedQueue {
    /// A newly created queue with these values.
    pub fn new(id: QueueId, name: impl Into<String>, kafka_topic: Option<String>) -> Self {
        Self { id, name: name.into(), kafka_topic }
    }
}

/// A consumer group (API reference 5.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerGroup {
    /// The id.
    pub id: GroupId,
    /// The name given at creation.
    pub name: String,
    /// The messages in the queue, without expired ones.
    pub produced_messages: u64,
    /// The messages that this group has acknowledged.
    pub consumed_messages: u64,
    /// The messages that this group can consume now, without leased ones.
    pub available_messages: u64,
    /// All dead letters of this group so far, if the call requested them.
    pub produced_dead_letters: Option<u64>,
    /// The dead letters that this group can consume now, without leased ones, if the call requested them.
    pub available_dead_letters: Option<u64>,
}

impl ConsumerGroup {
    /// A group with these values and zeros otherwise.
    pub fn new(id: GroupId, name: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            produced_messages: 0,
            consumed_messages: 0,
            available_messages: 0,
            produced_dead_letters: None,
            available_dead_letters: None,
        }
    }
}

/// The label filter of a consume call: the labels that a message must have (API reference 5.3.2, `tag`, `tag_type`).
///
/// A group keeps the filter of its first consume call for life; a call with another filter is refused (DMS.10542204). The order of
/// the labels does not matter.
///
/// # Examples
/// ```
/// use dms_protocol::queue::{TagFilter, TagMode};
///
/// let filter = TagFilter { tags: vec!["eu".to_owned(), "urgent".to_owned()], mode: TagMode::And };
/// assert!(filter.matches(&["urgent", "eu", "paid"]) && !filter.matches(&["eu"]));
/// assert!(TagFilter::default().matches::<&str>(&[]), "without labels every message passes");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFilter {
    /// At most three labels. Without labels, all messages pass.
    pub tags: Vec<String>,
    /// Whether one label or all labels must match.
    pub mode: TagMode,
}

impl TagFilter {
    /// Returns whether all messages pass the filter.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Returns whether a message with these labels passes.
    pub fn matches<T: AsRef<str>>(&self, labels: &[T]) -> bool {
        let carried = |wanted: &String| labels.iter().any(|label| label.as_ref() == wanted);
        match self.mode {
            _ if self.tags.is_empty() => true,
            TagMode::Or => self.tags.iter().any(carried),
            TagMode::And => self.tags.iter().all(carried),
        }
    }
}

/// How the labels of a [`TagFilter`] combine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TagMode {
    /// One label must match. The default.
    #[default]
    Or,
    /// All labels must match.
    And,
}

/// A resource tag of a queue (API reference 5.4). It is not a label of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueTag {
    /// The key: 1-36 characters, without ASCII 0-31 and `= * < > \ , | /`.
    pub key: String,
    /// The value: 0-43 characters, without the same ones.
    pub value: String,
}

/// A tag key of a project, with all its values (API reference 5.4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectTag {
    /// The key.
    pub key: String,
    /// The values in all queues.
    pub values: Vec<String>,
}

/// One line of the project's quotas (API reference 5.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quota {
    /// The limited resource, such as `queue`, `group`, `kafkaQueue` or `tags`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit.
    pub quota: u64,
    /// The amount in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The lowest possible limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// The highest possible limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl Quota {
    /// A quota with these values only.
    pub fn new(kind: impl Into<String>, quota: u64) -> Self {
        Self { kind: kind.into(), quota, used: None, min: None, max: None }
    }
}
