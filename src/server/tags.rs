//! Resource tags of queues (API reference 5.4), with the single-tag calls that only the OTC documents have.

use std::collections::HashSet;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    app::App,
    broker::BrokerError,
    codes::{self, Code},
    error::ApiError,
    json::{self, Json},
    paths::{QueuePath, decoded},
};
use crate::{
    limits::{self, LimitError},
    queue::{ProjectId, ProjectTag, QueueTag},
};

/// The body of 5.4.1.
#[derive(Debug, Deserialize)]
struct TagAction {
    /// Both are optional in the table of 5.4.1; without them there is nothing to do.
    #[serde(default)]
    action: String,
    #[serde(default)]
    tags: Vec<TagEntry>,
}

/// A tag as requests carry it: a deletion may leave the value out.
#[derive(Debug, Deserialize)]
struct TagEntry {
    key: String,
    value: Option<String>,
}

/// The body of the OTC call that adds one tag.
#[derive(Debug, Deserialize)]
struct OneTag {
    tag: TagEntry,
}

/// The answer of 5.4.2 and 5.4.3.
#[derive(Debug, Serialize)]
pub(super) struct Tags<T> {
    tags: Vec<T>,
}

/// `POST /queue/{queue_id}/tags/action` (5.4.1): all of the tags or none; repeating the call changes nothing.
pub(super) async fn act(app: &App, path: &QueuePath, body: &[u8]) -> Result<StatusCode, ApiError> {
    let request: TagAction = json::parse(body)?;
    match request.action.as_str() {
        "create" | "delete" if request.tags.is_empty() => return Err(codes::PARAMETER.because("tags is empty.")),
        "create" => {
            let tags = request.tags.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
            no_key_twice(&tags)?;
            app.broker.put_tags(&path.project, &path.queue, tags).await?;
        }
        "delete" => {
            let tags = request.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
            app.broker.delete_tags(&path.project, &path.queue, tags).await?;
        }
        other => return Err(codes::TAG_ACTION.because(format!("action is {other:?}."))),
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /queue/{queue_id}/tags`: one tag (OTC documents only).
pub(super) async fn add(app: &App, path: &QueuePath, body: &[u8]) -> Result<StatusCode, ApiError> {
    let request: OneTag = json::parse(body)?;
    let tag = checked(request.tag)?;
    app.broker.put_tags(&path.project, &path.queue, vec![tag]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /queue/{queue_id}/tags/{key}`: one tag, which must be there (OTC documents only).
pub(super) async fn remove(app: &App, path: &QueuePath, key: &str) -> Result<StatusCode, ApiError> {
    let key = decoded(key)?.into_owned();
    let tags = app.broker.tags(&path.project, &path.queue).await?;
    if !tags.iter().any(|tag| tag.key == key) {
        return Err(BrokerError::TagNotFound(key).into());
    }
    app.broker.delete_tags(&path.project, &path.queue, vec![(key, None)]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /queue/{queue_id}/tags` (5.4.2).
pub(super) async fn of_queue(app: &App, path: &QueuePath) -> Result<Json<Tags<QueueTag>>, ApiError> {
    Ok(Json(Tags { tags: app.broker.tags(&path.project, &path.queue).await? }))
}

/// `GET /queue/tags` (5.4.3).
pub(super) async fn of_project(app: &App, project: &ProjectId) -> Result<Json<Tags<ProjectTag>>, ApiError> {
    Ok(Json(Tags { tags: app.broker.project_tags(project).await? }))
}

fn checked(tag: TagEntry) -> Result<QueueTag, ApiError> {
    let Some(value) = tag.value else {
        return Err(codes::BODY_FORMAT.because(format!("The tag {:?} has no value.", tag.key)));
    };
    let code = |error: &LimitError, length: Code, chars: Code| {
        if error.what.starts_with("length") { length } else { chars }
    };
    limits::tag_key(&tag.key)
        .map_err(|error| code(&error, codes::TAG_KEY_LENGTH, codes::TAG_KEY_CHARS).because(error))?;
    limits::tag_value(&value)
        .map_err(|error| code(&error, codes::TAG_VALUE_LENGTH, codes::TAG_VALUE_CHARS).because(error))?;
    Ok(QueueTag { key: tag.key, value })
}

fn no_key_twice(tags: &[QueueTag]) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    match tags.iter().find(|tag| !seen.insert(&tag.key)) {
        Some(tag) => Err(codes::TAG_KEY_USED.because(format!("{:?} is in the request twice.", tag.key))),
        None => Ok(()),
    }
}
