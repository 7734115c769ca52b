//! Queues: create, list, show, delete (API reference 5.1).

use http::StatusCode;
use serde::Serialize;

use crate::{
    auth::rights::Right,
    handlers::request::ApiRequest,
    http::{
        codes,
        error::ApiError,
        json::{self, Json},
    },
};
use dms_protocol::{
    internal::json::{Fault, Scan, excerpt, quoted},
    limits,
    queue::{NewQueue, Queue, QueueMode},
};

/// The body of 5.1.1. Fields that are absent or `null` have their defaults. Numbers are raw JSON, because a wrong one of any
/// type has its own code.
#[derive(Debug)]
struct CreateQueue<'a> {
    name: String,
    queue_mode: Option<String>,
    description: Option<String>,
    redrive_policy: Option<String>,
    max_consume_count: Option<&'a [u8]>,
    retention_hours: Option<&'a [u8]>,
}

/// The answer of 5.1.1.
#[derive(Debug, Serialize)]
pub(crate) struct QueueCreated {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_topic: Option<String>,
}

/// A queue in the answers of 5.1.2 and 5.1.3.
#[derive(Debug, Serialize)]
pub(crate) struct QueueView {
    id: String,
    name: String,
    description: String,
    queue_mode: QueueMode,
    reservation: u64,
    created: i64,
    max_msg_size_byte: u64,
    produced_messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<u32>,
    eff_date: i64,
    group_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_topic: Option<String>,
}

/// The answer of 5.1.2.
#[derive(Debug, Serialize)]
pub(crate) struct QueueList {
    total: usize,
    queues: Vec<QueueView>,
}

/// `POST /queues` (5.1.1).
pub(crate) async fn create(request: &ApiRequest<'_>) -> Result<(StatusCode, Json<QueueCreated>), ApiError> {
    let queue = checked(json::read(request.body, create_queue)?)?;
    request.caller.may(Right::Manage, request.project, &queue.name)?;
    let created = request.app.broker.create_queue(&request.project_id(), queue).await?;
    let view = QueueCreated { id: created.id.to_string(), name: created.name, kafka_topic: created.kafka_topic };
    Ok((StatusCode::CREATED, Json(view)))
}

/// The queues of a project that a caller may see.
pub(crate) async fn seen(request: &ApiRequest<'_>) -> Result<Vec<Queue>, ApiError> {
    let mut queues = request.app.broker.queues(&request.project_id()).await?;
    queues.retain(|queue| request.caller.sees_queue(request.project, &queue.name));
    Ok(queues)
}

/// `GET /queues` (5.1.2).
pub(crate) async fn list(request: &ApiRequest<'_>) -> Result<Json<QueueList>, ApiError> {
    let dead_letters = request.query()?.flag("include_deadletter", false)?;
    let seen = seen(request).await?.into_iter();
    let queues: Vec<_> = seen.map(|queue| view(queue, dead_letters)).collect();
    Ok(Json(QueueList { total: queues.len(), queues }))
}

/// `GET /queues/{queue_id}` (5.1.3).
pub(crate) async fn show(request: &ApiRequest<'_>) -> Result<Json<QueueView>, ApiError> {
    let path = request.queue()?;
    let dead_letters = request.query()?.flag("include_deadletter", false)?;
    let queue = request.app.broker.queue(&path.project, &path.queue).await?;
    Ok(Json(view(queue, dead_letters)))
}

/// `DELETE /queues/{queue_id}` (5.1.4).
pub(crate) async fn delete(request: &ApiRequest<'_>) -> Result<StatusCode, ApiError> {
    let path = request.queue()?;
    request.app.broker.delete_queue(&path.project, &path.queue).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(queue: Queue, with_dead_letters: bool) -> QueueView {
    // Kafka queues have no dead letters, so the flag has no effect on them (5.1.2).
    let shown = with_dead_letters && !queue.mode.is_kafka();
    QueueView {
        id: queue.id.to_string(),
        name: queue.name,
        description: queue.description,
        queue_mode: queue.mode,
        reservation: queue.reservation_minutes,
        created: queue.created_ms,
        max_msg_size_byte: queue.max_message_bytes,
        produced_messages: queue.produced_messages,
        redrive_policy: shown.then(|| policy(queue.dead_letters == Some(true))),
        max_consume_count: queue.max_consume_count.filter(|_| shown),
        eff_date: queue.created_ms,
        group_count: queue.group_count,
        kafka_topic: queue.kafka_topic,
    }
}

/// The word of the API for whether a queue has dead letters.
pub(crate) fn policy(dead_letters: bool) -> &'static str {
    if dead_letters { "enable" } else { "disable" }
}

fn create_queue<'a>(scan: &mut Scan<'a>) -> Result<CreateQueue<'a>, Fault> {
    let start = scan.start();
    let (mut name, mut mode, mut description, mut policy) = (None, None, None, None);
    let (mut count, mut hours) = (None, None);
    scan.members(|member, scan| match &**member {
        b"name" => member.once(&mut name, scan.owned()?),
        b"queue_mode" => member.once(&mut mode, scan.nullable(Scan::owned)?),
        b"description" => member.once(&mut description, scan.nullable(Scan::owned)?),
        b"redrive_policy" => member.once(&mut policy, scan.nullable(Scan::owned)?),
        b"max_consume_count" => member.once(&mut count, scan.nullable(Scan::value)?),
        b"retention_hours" => member.once(&mut hours, scan.nullable(Scan::value)?),
        _ => scan.value().map(drop),
    })?;
    Ok(CreateQueue {
        name: name.ok_or_else(|| Fault::missing("name", start))?,
        queue_mode: mode.flatten(),
        description: description.flatten(),
        redrive_policy: policy.flatten(),
        max_consume_count: count.flatten(),
        retention_hours: hours.flatten(),
    })
}

fn checked(request: CreateQueue<'_>) -> Result<NewQueue, ApiError> {
    name(&request.name)?;
    let mode = mode(request.queue_mode.as_deref())?;
    if let Some(text) = &request.description {
        description(text)?;
    }
    Ok(NewQueue {
        max_consume_count: max_consume_count(&request, mode)?,
        retention_hours: retention_hours(request.retention_hours, mode)?,
        name: request.name,
        mode,
        description: request.description,
    })
}

fn name(name: &str) -> Result<(), ApiError> {
    let code = match name.chars().count() {
        1..=limits::MAX_QUEUE_NAME => codes::NAME_CHARS,
        _ => codes::QUEUE_NAME_LENGTH,
    };
    limits::queue_name(name).map_err(|error| code.because(error))
}

fn mode(text: Option<&str>) -> Result<QueueMode, ApiError> {
    match text {
        None | Some("NORMAL") => Ok(QueueMode::Normal),
        Some("FIFO") => Ok(QueueMode::Fifo),
        Some("KAFKA_HA") => Ok(QueueMode::KafkaHa),
        Some("KAFKA_HT") => Ok(QueueMode::KafkaHt),
        Some(other) => Err(codes::PARAMETER
            .at(format!("queue_mode is {}: NORMAL, FIFO, KAFKA_HA and KAFKA_HT are allowed.", quoted(other)))),
    }
}

fn description(text: &str) -> Result<(), ApiError> {
    let code = match text.chars().count() {
        0..=limits::MAX_DESCRIPTION => codes::DESCRIPTION_CHARS,
        _ => codes::DESCRIPTION_LENGTH,
    };
    limits::description(text).map_err(|error| code.because(error))
}

/// The maximum number of consumptions, if `redrive_policy` enables dead letters.
fn max_consume_count(request: &CreateQueue<'_>, mode: QueueMode) -> Result<Option<u32>, ApiError> {
    match request.redrive_policy.as_deref() {
        None | Some("disable") => return Ok(None),
        Some("enable") => {}
        Some(other) => {
            let other = quoted(other);
            return Err(codes::PARAMETER.at(format!("redrive_policy is {other}: enable and disable are allowed.")));
        }
    }
    if mode.is_kafka() {
        // Accepting the request without creating dead letters would lose the messages that the caller wants to keep.
        return Err(
            codes::PARAMETER.because(format!("redrive_policy is enable, but a {mode} queue has no dead letters."))
        );
    }
    let Some(count) = request.max_consume_count else {
        return Err(codes::MAX_CONSUME_COUNT.because("max_consume_count is required when redrive_policy is enable."));
    };
    let in_range = whole(count).filter(|count| limits::MAX_CONSUME_COUNT.contains(count));
    in_range.map(Some).ok_or_else(|| {
        codes::MAX_CONSUME_COUNT.at(format!("max_consume_count is {}: 1 to 100 are allowed.", excerpt(count)))
    })
}

fn retention_hours(hours: Option<&[u8]>, mode: QueueMode) -> Result<Option<u32>, ApiError> {
    let Some(hours) = hours else { return Ok(None) };
    if !mode.is_kafka() {
        return Err(codes::RETENTION_MODE.because(format!("queue_mode is {mode}.")));
    }
    let in_range = whole(hours).filter(|hours| limits::RETENTION_HOURS.contains(hours));
    in_range.map(Some).ok_or_else(|| {
        codes::RETENTION_RANGE.at(format!("retention_hours is {}: 1 to 72 are allowed.", excerpt(hours)))
    })
}

/// Parses a whole number. `None` for fractions and texts, which are refused like a number outside of the range.
fn whole(value: &[u8]) -> Option<u32> {
    str::from_utf8(value).ok()?.parse().ok()
}
