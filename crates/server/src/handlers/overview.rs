//! The extension `overview`: all queues and groups of a project with their counters, in one answer.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    broker::{BrokerError, GroupOverview, OverviewPage, QueueOverview},
    clock::millis,
    handlers::{queues::policy, request::ApiRequest},
    http::{codes, error::ApiError, json::Json},
};
use dms_protocol::{
    internal::json::quoted,
    queue::{GroupId, QueueId, QueueMode},
};

/// The maximum number of queues in one answer.
const MAX_QUEUES: usize = 1_000;
/// The maximum size of an answer in bytes, unless one queue alone is larger. Clients of this project read 8 MiB.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// No view of a queue without its groups is larger than this, nor one of a group than the next.
const QUEUE_BYTES: usize = 2 * 1024;
const GROUP_BYTES: usize = 768;

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    /// When it was made, in Unix milliseconds.
    time: i64,
    queues: Vec<QueueView>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
}

#[derive(Debug, Serialize)]
struct QueueView {
    id: String,
    name: String,
    description: String,
    queue_mode: QueueMode,
    created: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<u32>,
    max_msg_size_byte: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_topic: Option<String>,
    retention_ms: u64,
    delete_when_settled: bool,
    produced_messages: u64,
    delayed_messages: u64,
    total_produced_messages: u64,
    produced_per_second: f64,
    groups: Vec<GroupView>,
}

#[derive(Debug, Serialize)]
struct GroupView {
    id: String,
    name: String,
    available_messages: u64,
    leased_messages: u64,
    consumed_messages: u64,
    available_deadletters: u64,
    produced_deadletters: u64,
    damaged_messages: u64,
    /// The age of the oldest message that is leased or available.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_age_ms: Option<u64>,
    waiting_polls: u64,
    consumed_per_second: f64,
}

/// `GET /overview?queue=…&limit=…&marker=…`: the queues of the project that the caller may see, oldest first; with `queue` only the
/// one of this name or id.
pub(crate) async fn show(request: &ApiRequest<'_>) -> Result<Json<Overview>, ApiError> {
    let (app, query) = (request.app, request.query()?);
    let wanted = query.first("queue");
    let max = query.number("limit", MAX_QUEUES, &(1..=MAX_QUEUES), codes::URL_PARAMETER)?;
    let after = query.first("marker").map(QueueId::from);
    let is_shown = |id: &QueueId, name: &str| {
        wanted.is_none_or(|wanted| name == wanted || id.as_str() == wanted)
            && request.caller.sees_queue(request.project, name)
    };
    // One queue more than is shown says whether there is another page.
    let page = OverviewPage { after: after.as_ref(), max: max + 1, is_shown: &is_shown };
    let queues = app.broker.project_overview(&request.project_id(), page).await;
    let mut queues = queues.map_err(|error| match (&after, error) {
        (Some(marker), BrokerError::QueueNotFound) => codes::URL_PARAMETER.because(format!(
            "marker is {}, which is no queue of this project any more: start again without it.",
            quoted(marker.as_str())
        )),
        (_, error) => error.into(),
    })?;
    let shown = fitting(&queues).min(max);
    let more = queues.len() > shown;
    queues.truncate(shown);
    let next_marker = queues.last().filter(|_| more).map(|queue| queue.queue.id.to_string());
    let ids: Vec<_> = queues.iter().map(|queue| queue.queue.id.clone()).collect();
    let oldest = app.broker.oldest_in(&ids).await?;
    let time = app.authenticator.clock().now_ms();
    let queues = queues.into_iter().map(|queue| queue_view(queue, &oldest, time)).collect();
    Ok(Json(Overview { time, queues, next_marker }))
}

/// The number of queues whose views surely fit into one answer; at least one.
fn fitting(queues: &[QueueOverview]) -> usize {
    let mut left = MAX_BYTES;
    let fits = |queue: &&QueueOverview| {
        let size = QUEUE_BYTES + queue.groups.len() * GROUP_BYTES;
        left = left.saturating_sub(size);
        left > 0
    };
    queues.iter().take_while(fits).count().max(1)
}

fn queue_view(overview: QueueOverview, oldest: &HashMap<GroupId, i64>, time: i64) -> QueueView {
    let queue = overview.queue;
    let has_policy = !queue.mode.is_kafka();
    QueueView {
        id: queue.id.to_string(),
        name: queue.name,
        description: queue.description,
        queue_mode: queue.mode,
        created: queue.created_ms,
        redrive_policy: has_policy.then(|| policy(queue.dead_letters == Some(true))),
        max_consume_count: queue.max_consume_count,
        max_msg_size_byte: queue.max_message_bytes,
        kafka_topic: queue.kafka_topic,
        retention_ms: millis(overview.retention),
        delete_when_settled: overview.delete_when_settled,
        produced_messages: queue.produced_messages,
        delayed_messages: overview.delayed,
        total_produced_messages: overview.entered,
        produced_per_second: rounded(overview.entered_per_second),
        groups: overview.groups.into_iter().map(|group| group_view(group, oldest, time)).collect(),
    }
}

fn group_view(overview: GroupOverview, oldest: &HashMap<GroupId, i64>, time: i64) -> GroupView {
    let group = overview.group;
    let age = |entered: &i64| u64::try_from(time.saturating_sub(*entered)).unwrap_or(0);
    GroupView {
        oldest_age_ms: oldest.get(&group.id).map(age),
        id: group.id.to_string(),
        name: group.name,
        available_messages: group.available_messages,
        leased_messages: overview.in_flight,
        consumed_messages: group.consumed_messages,
        available_deadletters: group.available_dead_letters.unwrap_or(0),
        produced_deadletters: group.produced_dead_letters.unwrap_or(0),
        damaged_messages: overview.damaged,
        waiting_polls: overview.polls,
        consumed_per_second: rounded(overview.consumed_per_second),
    }
}

/// A rate with three decimals.
fn rounded(rate: f64) -> f64 {
    (rate * 1_000.0).round() / 1_000.0
}
