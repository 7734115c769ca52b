//! Queues and quotas (API reference 5.1, 5.5; 7.1.1-7.1.4, 7.1.11).

use serde::{Deserialize, Serialize};

use super::{number, optional_number, text};
use crate::queue::{CreatedQueue, NewQueue, Queue, QueueId, QueueMode, Quota};

#[derive(Serialize)]
struct CreateBody<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    queue_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_hours: Option<u32>,
}

/// The body of a call that creates a queue.
pub(crate) fn encode_new(queue: &NewQueue) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&CreateBody {
        name: &queue.name,
        description: queue.description.as_deref(),
        queue_mode: queue.mode.as_str(),
        redrive_policy: queue.max_consume_count.map(|_| "enable"),
        max_consume_count: queue.max_consume_count,
        retention_hours: queue.retention_hours,
    })
}

#[derive(Deserialize)]
struct CreatedBody {
    id: QueueId,
    #[serde(default, deserialize_with = "text")]
    name: String,
    kafka_topic: Option<String>,
}

/// Reads the answer to the creation of a queue.
pub(crate) fn decode_created(body: &[u8]) -> Result<CreatedQueue, serde_json::Error> {
    let CreatedBody { id, name, kafka_topic } = serde_json::from_slice(body)?;
    Ok(CreatedQueue::new(id, name, kafka_topic))
}

#[derive(Deserialize)]
struct QueueBody {
    id: QueueId,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    queue_mode: String,
    #[serde(default, deserialize_with = "text")]
    description: String,
    #[serde(default, deserialize_with = "number")]
    created: u64,
    #[serde(default, deserialize_with = "number")]
    reservation: u64,
    #[serde(default, deserialize_with = "number")]
    max_msg_size_byte: u64,
    #[serde(default, deserialize_with = "number")]
    produced_messages: u64,
    #[serde(default, deserialize_with = "number")]
    group_count: u64,
    redrive_policy: Option<String>,
    #[serde(default, deserialize_with = "optional_number")]
    max_consume_count: Option<u64>,
    kafka_topic: Option<String>,
}

impl From<QueueBody> for Queue {
    fn from(body: QueueBody) -> Self {
        let dead_letters = body.redrive_policy.map(|policy| policy == "enable");
        let mut queue = Self::new(body.id, body.name, mode(&body.queue_mode));
        queue.description = body.description;
        queue.created_ms = i64::try_from(body.created).unwrap_or(i64::MAX);
        queue.reservation_minutes = body.reservation;
        queue.max_message_bytes = body.max_msg_size_byte;
        queue.produced_messages = body.produced_messages;
        queue.group_count = u32::try_from(body.group_count).unwrap_or(u32::MAX);
        queue.dead_letters = dead_letters;
        queue.max_consume_count = body.max_consume_count.and_then(|count| u32::try_from(count).ok());
        queue.kafka_topic = body.kafka_topic;
        queue
    }
}

/// The mode of this name; `NORMAL` for an unknown one.
pub(super) fn mode(word: &str) -> QueueMode {
    [QueueMode::Fifo, QueueMode::KafkaHa, QueueMode::KafkaHt]
        .into_iter()
        .find(|mode| mode.as_str() == word)
        .unwrap_or_default()
}

/// Reads one queue.
pub(crate) fn decode_queue(body: &[u8]) -> Result<Queue, serde_json::Error> {
    serde_json::from_slice::<QueueBody>(body).map(Queue::from)
}

/// Reads a list of queues.
pub(crate) fn decode_queues(body: &[u8]) -> Result<Vec<Queue>, serde_json::Error> {
    #[derive(Deserialize)]
    struct List {
        queues: Vec<QueueBody>,
    }
    let list: List = serde_json::from_slice(body)?;
    Ok(list.queues.into_iter().map(Queue::from).collect())
}

/// Reads the quotas.
pub(crate) fn decode_quotas(body: &[u8]) -> Result<Vec<Quota>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Outer {
        quotas: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        resources: Vec<Quota>,
    }
    serde_json::from_slice(body).map(|outer: Outer| outer.quotas.resources)
}
