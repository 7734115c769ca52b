//! Queues and consumer groups: their identities, what they are made of, and the labels a group filters by.
//!
//! Plain values without behaviour; the rules on names and counts are in [`limits`](crate::limits).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an identifier newtype: opaque text, compared and printed as it came.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Wraps an identifier as the service gave it.
            pub fn new(id: impl Into<Box<str>>) -> Self {
                Self(id.into())
            }

            /// The identifier as text.
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
    /// The project that owns queues: the `{project_id}` of every path.
    ProjectId
}
identifier! {
    /// A queue's identifier: a UUID given by the service at creation.
    QueueId
}
identifier! {
    /// A consumer group's identifier: `g-` and a UUID, given by the service at creation.
    GroupId
}

/// Which of a group's two streams is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The queue's messages. The default.
    #[default]
    Messages,
    /// The messages that failed too often in this group.
    DeadLetters,
}

/// Where messages are consumed from and acknowledged to: one stream of a group of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourcePath {
    /// The queue.
    pub queue: QueueId,
    /// The consumer group.
    pub group: GroupId,
    /// Its messages or its dead letters.
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
    /// High concurrency, order kept per partition only. The default.
    #[default]
    #[serde(rename = "NORMAL")]
    Normal,
    /// One partition, strict first-in first-out order.
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
    /// The wire's word for this mode.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::KafkaHa => "KAFKA_HA",
            Self::KafkaHt => "KAFKA_HT",
        }
    }

    /// Whether this is one of the two Kafka modes.
    pub fn is_kafka(self) -> bool {
        matches!(self, Self::KafkaHa | Self::KafkaHt)
    }
}

impl fmt::Display for QueueMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a queue is created from (API reference 5.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewQueue {
    /// Unique in the project, 1-64 of `A-Z a-z 0-9 _ -`; cannot be changed later.
    pub name: String,
    /// The mode; `NORMAL` by default.
    pub mode: QueueMode,
    /// Free text of at most 160 characters without `<` and `>`.
    pub description: Option<String>,
    /// Dead letters: after this many failed consumptions (1-100) a message moves to the group's dead
    /// letters. `None` disables them (`redrive_policy: disable`), and a failing message comes again for ever.
    pub max_consume_count: Option<u32>,
    /// Kafka modes only: how long messages are kept, 1-72 hours.
    pub retention_hours: Option<u32>,
}

impl NewQueue {
    /// A `NORMAL` queue without dead letters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the mode.
    pub fn mode(mut self, mode: QueueMode) -> Self {
        self.mode = mode;
        self
    }

    /// Enables dead letters after `count` failed consumptions (1-100).
    pub fn dead_letters_after(mut self, count: u32) -> Self {
        self.max_consume_count = Some(count);
        self
    }

    /// Sets the description.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Sets how long a Kafka queue keeps its messages, in hours (1-72).
    pub fn retention_hours(mut self, hours: u32) -> Self {
        self.retention_hours = Some(hours);
        self
    }
}

/// A queue as the service shows it (API reference 5.1.2, 5.1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// The identifier that paths name the queue by.
    pub id: QueueId,
    /// The name given at creation.
    pub name: String,
    /// The mode; a mode that this version does not know reads as `NORMAL`.
    pub mode: QueueMode,
    /// The description, empty where none was given.
    pub description: String,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// How long messages are kept, in minutes (4320 = 72 hours).
    pub reservation_minutes: u64,
    /// The largest request of messages, in bytes (524 288).
    pub max_message_bytes: u64,
    /// Messages in the queue, settled ones included, expired ones not.
    pub produced_messages: u64,
    /// Consumer groups of the queue.
    pub group_count: u32,
    /// Whether dead letters are enabled; known only where the call asked for them.
    pub dead_letters: Option<bool>,
    /// Failed consumptions before a message becomes a dead letter; known only where the call asked.
    pub max_consume_count: Option<u32>,
    /// The topic's name for native Kafka clients; Kafka modes only.
    pub kafka_topic: Option<String>,
}

impl Queue {
    /// A queue of which nothing else is known: numbers are zero, texts empty.
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

/// The answer to creating a queue (API reference 5.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedQueue {
    /// The new queue's identifier.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// The topic's name for native Kafka clients; Kafka modes only.
    pub kafka_topic: Option<String>,
}

impl CreatedQueue {
    /// What creating a queue is answered with.
    pub fn new(id: QueueId, name: impl Into<String>, kafka_topic: Option<String>) -> Self {
        Self { id, name: name.into(), kafka_topic }
    }
}

/// A consumer group as the service shows it (API reference 5.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerGroup {
    /// The identifier that paths name the group by.
    pub id: GroupId,
    /// The name given at creation.
    pub name: String,
    /// Messages in the queue, expired ones not counted.
    pub produced_messages: u64,
    /// Messages that this group has acknowledged.
    pub consumed_messages: u64,
    /// Messages that this group can consume now; leased ones are not among them.
    pub available_messages: u64,
    /// Dead letters that this group ever made; known only where the call asked for them.
    pub produced_dead_letters: Option<u64>,
    /// Dead letters that this group can consume now: neither acknowledged nor out in a batch; known only where the call asked for
    /// them.
    pub available_dead_letters: Option<u64>,
}

impl ConsumerGroup {
    /// A group of which nothing else is known: numbers are zero.
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

/// The label rule of a consume call: which labels a message must carry (API reference 5.3.2, `tag`, `tag_type`).
///
/// A group keeps the rule of its first consume for life. The order of the labels does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFilter {
    /// At most three labels; none lets every message pass.
    pub tags: Vec<String>,
    /// Whether one label is enough or all are needed.
    pub mode: TagMode,
}

impl TagFilter {
    /// Whether the filter lets every message pass.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Whether a message with these labels passes.
    pub fn matches<T: AsRef<str>>(&self, labels: &[T]) -> bool {
        let carried = |wanted: &String| labels.iter().any(|label| label.as_ref() == wanted);
        match self.mode {
            _ if self.tags.is_empty() => true,
            TagMode::Or => self.tags.iter().any(carried),
            TagMode::And => self.tags.iter().all(carried),
        }
    }
}

/// How several labels of a [`TagFilter`] combine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum TagMode {
    /// One matching label is enough. The default.
    #[default]
    Or,
    /// Every label must be there.
    And,
}

/// A resource tag of a queue (API reference 5.4), not to be confused with a message's labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueTag {
    /// 1-36 characters, none of ASCII 0-31 or `= * < > \ , | /`.
    pub key: String,
    /// 0-43 characters, the same ones forbidden.
    pub value: String,
}

/// A tag key used in a project, with every value it has there (API reference 5.4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectTag {
    /// The key.
    pub key: String,
    /// Its values across all queues.
    pub values: Vec<String>,
}

/// One line of the project's quotas (API reference 5.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quota {
    /// What is limited: `queue`, `group`, `kafkaQueue`, `tags`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit.
    pub quota: u64,
    /// How much of it is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The least the limit can be set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// The most the limit can be set to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl Quota {
    /// A limit of which nothing else is known.
    pub fn new(kind: impl Into<String>, quota: u64) -> Self {
        Self { kind: kind.into(), quota, used: None, min: None, max: None }
    }
}
