//! `/admin/damaged`: lists damaged messages that are set aside, and skips them permanently.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;

use crate::{
    admin::response::answer,
    broker::DamagedMessage,
    http::{codes, error::ApiError, query::Query},
    state::AppState,
};
use dms_protocol::internal::json::quoted;

/// A damaged message as `/admin/damaged` shows it.
#[derive(Debug, Serialize)]
struct DamagedView {
    project: String,
    queue_id: String,
    queue: String,
    /// Missing for a delayed message.
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// `messages`, `deadletters` or `delayed`.
    stream: &'static str,
    sequence: u64,
    file: String,
    offset: u64,
    reason: String,
}

impl From<DamagedMessage> for DamagedView {
    fn from(message: DamagedMessage) -> Self {
        Self {
            project: message.project.to_string(),
            queue_id: message.queue.to_string(),
            queue: message.queue_name,
            group_id: message.group.map(|group| group.to_string()),
            group: message.group_name,
            stream: message.of.as_str(),
            sequence: message.sequence,
            file: message.file,
            offset: message.offset,
            reason: message.reason,
        }
    }
}

/// The number of skipped messages.
#[derive(Debug, Serialize)]
struct Skipped {
    skipped: u64,
}

/// `/admin/damaged?queue=…&group=…&stream=…&sequence=…`: the damaged messages that match all parameters.
pub(crate) async fn list(State(app): State<Arc<AppState>>, query: Query) -> Response {
    answer(chosen(&app, &query).map(|chosen| chosen.into_iter().map(DamagedView::from).collect::<Vec<_>>()))
}

/// `POST /admin/damaged/skip` with the same parameters, of which `queue` is required: skips the messages permanently.
pub(crate) async fn skip(State(app): State<Arc<AppState>>, query: Query) -> Response {
    answer(skip_chosen(&app, &query).await)
}

async fn skip_chosen(app: &AppState, query: &Query) -> Result<Skipped, ApiError> {
    query.only(&["project", "queue", "group", "stream", "sequence"])?;
    if query.first("queue").is_none() {
        return Err(codes::URL_PARAMETER.because("queue is missing: name the queue whose damaged messages to skip."));
    }
    let mut skipped = 0;
    let messages = chosen(app, query)?;
    if let (Some(sequence), []) = (query.first("sequence"), &*messages) {
        let text = format!("There is no damaged message {sequence} where the parameters say.");
        return Err(codes::URL_NOT_FOUND.saying(text));
    }
    for message in messages {
        app.broker.skip_damaged(&message).await?;
        tracing::warn!(
            project = %message.project,
            queue = message.queue_name,
            group = message.group_name.as_deref().unwrap_or_default(),
            stream = message.of.as_str(),
            sequence = message.sequence,
            "a damaged message was skipped permanently"
        );
        skipped += 1;
    }
    Ok(Skipped { skipped })
}

/// The damaged messages that match all parameters. Queues and groups are given by name or id.
///
/// # Errors
/// 404 with the name of a project, queue or group that does not exist, 400 for a wrong stream or sequence number.
fn chosen(app: &AppState, query: &Query) -> Result<Vec<DamagedMessage>, ApiError> {
    check_names(app, query)?;
    let sequence = match query.first("sequence") {
        None => None,
        Some(_) => Some(query.number("sequence", 0, &(0..=u64::MAX), codes::URL_PARAMETER)?),
    };
    let fits = |message: &DamagedMessage| {
        let queue = [message.queue.as_str(), &message.queue_name];
        let group = [message.group.as_ref().map(|group| group.as_str()), message.group_name.as_deref()];
        query.first("project").is_none_or(|project| message.project.as_str() == project)
            && query.first("queue").is_none_or(|wanted| queue.contains(&wanted))
            && query.first("group").is_none_or(|wanted| group.contains(&Some(wanted)))
            && query.first("stream").is_none_or(|wanted| message.of.as_str() == wanted)
            && sequence.is_none_or(|sequence| message.sequence == sequence)
    };
    Ok(app.broker.damaged().into_iter().filter(fits).collect())
}

/// Checks that the project, the queue, the group and the stream in the parameters exist.
fn check_names(app: &AppState, query: &Query) -> Result<(), ApiError> {
    let mut queues = app.broker.overview();
    if let Some(project) = query.first("project") {
        queues.retain(|queue| queue.project.as_str() == project);
        if queues.is_empty() {
            return Err(codes::QUEUE_NOT_FOUND.because(format!("The project {} has no queues", quoted(project))));
        }
    }
    if let Some(wanted) = query.first("queue") {
        queues.retain(|queue| queue.queue.id.as_str() == wanted || queue.queue.name == wanted);
        if queues.is_empty() {
            return Err(codes::QUEUE_NOT_FOUND.because(format!("There is no queue {}", quoted(wanted))));
        }
    }
    if let Some(wanted) = query.first("group") {
        let mut groups = queues.iter().flat_map(|queue| &queue.groups);
        if !groups.any(|group| group.group.id.as_str() == wanted || group.group.name == wanted) {
            return Err(codes::GROUP_NOT_FOUND.because(format!("There is no group {}", quoted(wanted))));
        }
    }
    match query.first("stream") {
        None | Some("messages" | "deadletters" | "delayed") => Ok(()),
        Some(other) => {
            let text = format!("stream is {}: messages, deadletters and delayed are allowed.", quoted(other));
            Err(codes::URL_PARAMETER.because(text))
        }
    }
}
