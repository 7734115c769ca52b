//! Resource tags of queues (API reference 5.4), with the single-tag calls that only the OTC documents have.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use http::StatusCode;
use serde::Serialize;

use crate::{
    broker::BrokerError,
    handlers::{queues, request::ApiRequest},
    http::{
        codes::{self, Code},
        error::ApiError,
        json::{self, Json},
        path::decoded,
    },
};
use dms_protocol::{
    internal::json::{Fault, Scan, quoted},
    limits::{self, LimitError},
    queue::{ProjectTag, QueueTag},
};

/// The body of 5.4.1. Both members are optional in its table, but without them there is nothing to do.
#[derive(Debug)]
struct TagAction {
    action: String,
    tags: Vec<TagEntry>,
}

/// A tag in a request. A deletion may omit the value.
#[derive(Debug)]
struct TagEntry {
    key: String,
    value: Option<String>,
}

/// The answer of 5.4.2 and 5.4.3.
#[derive(Debug, Serialize)]
pub(crate) struct TagList<T> {
    tags: Vec<T>,
}

/// `POST /queue/{queue_id}/tags/action` (5.4.1): all of the tags or none; repeating the call changes nothing.
pub(crate) async fn act(request: &ApiRequest<'_>) -> Result<StatusCode, ApiError> {
    let (broker, path) = (&request.app.broker, request.queue()?);
    let change = json::read(request.body, tag_action)?;
    match change.action.as_str() {
        "create" | "delete" if change.tags.is_empty() => {
            return Err(codes::PARAMETER.at("tags is empty: at least one is needed."));
        }
        "create" => {
            let tags = change.tags.into_iter().enumerate().map(numbered).collect::<Result<Vec<_>, _>>()?;
            no_key_twice(&tags)?;
            broker.put_tags(&path.project, &path.queue, tags).await?;
        }
        "delete" => {
            let tags = change.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
            broker.delete_tags(&path.project, &path.queue, tags).await?;
        }
        other => {
            return Err(codes::TAG_ACTION.at(format!("action is {}: create and delete are allowed.", quoted(other))));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /queue/{queue_id}/tags`: one tag (OTC documents only).
pub(crate) async fn add(request: &ApiRequest<'_>) -> Result<StatusCode, ApiError> {
    let path = request.queue()?;
    let tag = checked("tag", json::read(request.body, one_tag)?)?;
    request.app.broker.put_tags(&path.project, &path.queue, vec![tag]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /queue/{queue_id}/tags/{key}`: one tag, which must be there (OTC documents only).
pub(crate) async fn remove(request: &ApiRequest<'_>) -> Result<StatusCode, ApiError> {
    let (broker, path) = (&request.app.broker, request.queue()?);
    let key = decoded(request.params[1])?.into_owned();
    let tags = broker.tags(&path.project, &path.queue).await?;
    if !tags.iter().any(|tag| tag.key == key) {
        return Err(BrokerError::TagNotFound(key).into());
    }
    broker.delete_tags(&path.project, &path.queue, vec![(key, None)]).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /queue/{queue_id}/tags` (5.4.2).
pub(crate) async fn of_queue(request: &ApiRequest<'_>) -> Result<Json<TagList<QueueTag>>, ApiError> {
    let path = request.queue()?;
    Ok(Json(TagList { tags: request.app.broker.tags(&path.project, &path.queue).await? }))
}

/// `GET /queue/tags` (5.4.3).
pub(crate) async fn of_project(request: &ApiRequest<'_>) -> Result<Json<TagList<ProjectTag>>, ApiError> {
    let tags = match request.caller.limits(request.project) {
        None => request.app.broker.project_tags(&request.project_id()).await?,
        Some(_) => of_seen_queues(request).await?,
    };
    Ok(Json(TagList { tags }))
}

/// The tags of the queues that a caller may see, with their values, by key.
async fn of_seen_queues(request: &ApiRequest<'_>) -> Result<Vec<ProjectTag>, ApiError> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for queue in queues::seen(request).await? {
        // A queue that was deleted meanwhile has none.
        for tag in request.app.broker.tags(&request.project_id(), &queue.id).await.unwrap_or_default() {
            seen.entry(tag.key).or_default().insert(tag.value);
        }
    }
    Ok(seen.into_iter().map(|(key, values)| ProjectTag { key, values: values.into_iter().collect() }).collect())
}

fn tag_action(scan: &mut Scan<'_>) -> Result<TagAction, Fault> {
    let (mut action, mut tags) = (None, None);
    scan.members(|name, scan| match &**name {
        b"action" => name.once(&mut action, scan.owned()?),
        b"tags" => name.once(&mut tags, scan.items(tag_entry)?),
        _ => scan.value().map(drop),
    })?;
    Ok(TagAction { action: action.unwrap_or_default(), tags: tags.unwrap_or_default() })
}

/// The body of the OTC call that adds one tag.
fn one_tag(scan: &mut Scan<'_>) -> Result<TagEntry, Fault> {
    scan.only("tag", tag_entry)
}

fn tag_entry(scan: &mut Scan<'_>) -> Result<TagEntry, Fault> {
    let start = scan.start();
    let (mut key, mut value) = (None, None);
    scan.members(|name, scan| match &**name {
        b"key" => name.once(&mut key, scan.owned()?),
        b"value" => name.once(&mut value, scan.nullable(Scan::owned)?),
        _ => scan.value().map(drop),
    })?;
    Ok(TagEntry { key: key.ok_or_else(|| Fault::missing("key", start))?, value: value.flatten() })
}

fn numbered((index, tag): (usize, TagEntry)) -> Result<QueueTag, ApiError> {
    checked(&format!("tags[{index}]"), tag)
}

fn checked(place: &str, tag: TagEntry) -> Result<QueueTag, ApiError> {
    let Some(value) = tag.value else {
        return Err(codes::BODY_FORMAT.at(format!("{place}, with the key {}, has no value.", quoted(&tag.key))));
    };
    let code = |error: &LimitError, length: Code, chars: Code| {
        if error.what.starts_with("length") { length } else { chars }
    };
    limits::tag_key(&tag.key).map_err(|error| {
        code(&error, codes::TAG_KEY_LENGTH, codes::TAG_KEY_CHARS).at(error.of(format!("{place}.key")))
    })?;
    limits::tag_value(&value).map_err(|error| {
        code(&error, codes::TAG_VALUE_LENGTH, codes::TAG_VALUE_CHARS).at(error.of(format!("{place}.value")))
    })?;
    Ok(QueueTag { key: tag.key, value })
}

fn no_key_twice(tags: &[QueueTag]) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    match tags.iter().enumerate().find(|(_, tag)| !seen.insert(&tag.key)) {
        Some((index, tag)) => {
            Err(codes::TAG_KEY_USED.at(format!("tags[{index}].key is {:?}, and in the request twice.", tag.key)))
        }
        None => Ok(()),
    }
}
