//! Consumer groups: create, list, delete (API reference 5.2).

use std::collections::HashSet;

use http::StatusCode;
use serde::Serialize;

use crate::{
    handlers::{queues::policy, request::ApiRequest},
    http::{
        codes,
        error::ApiError,
        json::{self, Json},
        query::Query,
    },
};
use dms_protocol::{
    internal::json::{Fault, Scan},
    limits,
    queue::ConsumerGroup,
};

/// The answer of 5.2.1.
#[derive(Debug, Serialize)]
pub(crate) struct GroupsCreated {
    groups: Vec<CreatedGroup>,
}

#[derive(Debug, Serialize)]
struct CreatedGroup {
    id: String,
    name: String,
}

/// The answer of 5.2.2.
#[derive(Debug, Serialize)]
pub(crate) struct GroupsView {
    queue_id: String,
    queue_name: String,
    groups: Vec<GroupView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redrive_policy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct GroupView {
    id: String,
    name: String,
    produced_messages: u64,
    consumed_messages: u64,
    available_messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    produced_deadletters: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_deadletters: Option<u64>,
}

/// `POST /queues/{queue_id}/groups` (5.2.1).
pub(crate) async fn create(request: &ApiRequest<'_>) -> Result<(StatusCode, Json<GroupsCreated>), ApiError> {
    let path = request.queue()?;
    let names = json::read(request.body, group_names)?;
    check_names(&names)?;
    let ids = request.app.broker.create_groups(&path.project, &path.queue, &names).await?;
    let groups = ids.iter().zip(names).map(|(id, name)| CreatedGroup { id: id.to_string(), name }).collect();
    Ok((StatusCode::CREATED, Json(GroupsCreated { groups })))
}

/// `GET /queues/{queue_id}/groups` (5.2.2).
pub(crate) async fn list(request: &ApiRequest<'_>) -> Result<Json<GroupsView>, ApiError> {
    let (path, query) = (request.queue()?, request.query()?);
    let with_dead_letters = query.flag("include_deadletter", false)?;
    let counted = query.flag("include_messages_num", true)?;
    let list = request.app.broker.groups(&path.project, &path.queue).await?;
    let (skip, take) = page(&query);
    let groups = list.groups.into_iter().skip(skip).take(take);
    Ok(Json(GroupsView {
        queue_id: path.queue.to_string(),
        queue_name: list.queue_name,
        groups: groups.map(|group| view(group, counted, with_dead_letters)).collect(),
        redrive_policy: with_dead_letters.then(|| policy(list.dead_letters)),
    }))
}

/// `DELETE /queues/{queue_id}/groups/{group_id}` (5.2.3).
pub(crate) async fn delete(request: &ApiRequest<'_>) -> Result<StatusCode, ApiError> {
    let path = request.group().await?;
    request.app.broker.delete_group(&path).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body of 5.2.1.
fn group_names(scan: &mut Scan<'_>) -> Result<Vec<String>, Fault> {
    scan.only("groups", |scan| scan.items(group_name))
}

fn group_name(scan: &mut Scan<'_>) -> Result<String, Fault> {
    scan.only("name", Scan::owned)
}

fn check_names(names: &[String]) -> Result<(), ApiError> {
    if names.is_empty() {
        return Err(codes::PARAMETER.at(format!("groups is empty: 1 to {} are allowed.", limits::MAX_GROUPS)));
    }
    if names.len() > limits::MAX_GROUPS {
        let (found, most) = (names.len(), limits::MAX_GROUPS);
        return Err(codes::GROUP_QUOTA.at(format!("groups has {found} entries: at most {most} are allowed.")));
    }
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        let code = match name.chars().count() {
            1..=limits::MAX_GROUP_NAME => codes::NAME_CHARS,
            _ => codes::GROUP_NAME_LENGTH,
        };
        limits::group_name(name).map_err(|error| code.at(error.of(format!("groups[{index}].name"))))?;
        if !seen.insert(name) {
            return Err(codes::GROUP_EXISTS.at(format!("groups[{index}].name is {name:?}, and in the request twice.")));
        }
    }
    Ok(())
}

/// The number of groups to skip and to show. All groups are shown unless both parameters are valid (5.2.2).
fn page(query: &Query) -> (usize, usize) {
    let positive = |name| query.first(name)?.parse().ok().filter(|value: &usize| *value > 0);
    match (positive("page_size"), positive("current_page")) {
        (Some(size), Some(page)) => (size.saturating_mul(page - 1), size),
        _ => (0, usize::MAX),
    }
}

fn view(group: ConsumerGroup, counted: bool, with_dead_letters: bool) -> GroupView {
    let count = |value: u64| if counted { value } else { 0 };
    let dead = |value: Option<u64>| with_dead_letters.then(|| count(value.unwrap_or(0)));
    GroupView {
        id: group.id.to_string(),
        name: group.name,
        produced_messages: count(group.produced_messages),
        consumed_messages: count(group.consumed_messages),
        available_messages: count(group.available_messages),
        produced_deadletters: dead(group.produced_dead_letters),
        available_deadletters: dead(group.available_dead_letters),
    }
}
