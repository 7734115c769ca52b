//! Changes of a queue beyond the documented API: purging it, and changing its properties.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawPathParams, State},
    response::Response,
};
use serde::Serialize;

use crate::{
    admin::response::answer,
    broker::{GroupOverview, OverviewPage, Purged, QueueChange, QueueOverview, RetentionChange},
    clock::millis,
    http::{codes, error::ApiError, query::Query},
    state::AppState,
};
use dms_protocol::{internal::json::quoted, limits, queue::QueueId};

/// The answer to a purge.
#[derive(Debug, Serialize)]
struct PurgedView {
    queue_id: String,
    queue: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    purged_messages: u64,
    purged_delayed_messages: u64,
}

/// The answer to an update.
#[derive(Debug, Serialize)]
struct UpdatedView {
    queue_id: String,
    queue: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_consume_count: Option<u32>,
    retention_ms: u64,
    delete_when_settled: bool,
}

/// `POST /admin/queues/{queue_id}/purge?group=…`: deletes all messages of a queue, or settles the backlog of one group.
pub(crate) async fn purge(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    answer(purge_named(&app, &params, &query).await)
}

/// `POST /admin/queues/{queue_id}/update?retention_ms=…&delete_when_settled=…&description=…&max_consume_count=…`: changes a queue.
pub(crate) async fn update(State(app): State<Arc<AppState>>, params: RawPathParams, query: Query) -> Response {
    answer(update_named(&app, &params, &query).await)
}

async fn purge_named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<PurgedView, ApiError> {
    query.only(&["project", "group"])?;
    let named = named(app, params, query).await?;
    let group = query.first("group").map(|wanted| group_of(&named, wanted)).transpose()?;
    let (queue, id) = (&named.queue, group.map(|group| &group.group.id));
    let Purged { messages, delayed } = app.broker.purge(&named.project, &queue.id, id).await?;
    let name = group.map(|group| group.group.name.as_str());
    let (project, of) = (&named.project, name.unwrap_or_default());
    tracing::warn!(%project, queue = queue.name, group = of, messages, delayed, "the backlog was purged");
    Ok(PurgedView {
        queue_id: queue.id.to_string(),
        queue: queue.name.clone(),
        group_id: id.map(ToString::to_string),
        group: name.map(str::to_owned),
        purged_messages: messages,
        purged_delayed_messages: delayed,
    })
}

async fn update_named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<UpdatedView, ApiError> {
    query.only(&["project", "retention_ms", "delete_when_settled", "description", "max_consume_count"])?;
    let before = named(app, params, query).await?;
    let change = queue_change(query)?;
    let changes_retention = change.retention != RetentionChange::default();
    if change == QueueChange::default() {
        let text = "retention_ms, delete_when_settled, description or max_consume_count is needed.";
        return Err(codes::URL_PARAMETER.because(text));
    }
    // As one change, so that a refusal changes nothing.
    app.broker.change_queue(&before.project, &before.queue.id, change).await?;
    let is_it = |id: &QueueId, _: &str| *id == before.queue.id;
    let page = OverviewPage { after: None, max: 1, is_shown: &is_it };
    let now = app.broker.project_overview(&before.project, page).await?.into_iter().next();
    let now = now.ok_or_else(|| codes::QUEUE_NOT_FOUND.plain())?;
    let (retention_ms, delete_when_settled) = (millis(now.retention), now.delete_when_settled);
    if changes_retention {
        let (project, queue) = (&now.project, &now.queue.name);
        tracing::info!(%project, queue, retention_ms, delete_when_settled, "the retention was set");
    }
    Ok(UpdatedView {
        queue_id: now.queue.id.to_string(),
        queue: now.queue.name,
        description: now.queue.description,
        max_consume_count: now.queue.max_consume_count,
        retention_ms,
        delete_when_settled,
    })
}

/// The change that the parameters ask for. `none` switches dead letters off.
fn queue_change(query: &Query) -> Result<QueueChange, ApiError> {
    let description = query.given("description").map(str::to_owned);
    if let Some(description) = &description {
        limits::description(description).map_err(|error| codes::URL_PARAMETER.because(error))?;
    }
    let max_consume_count = match query.first("max_consume_count") {
        None => None,
        Some("none") => Some(None),
        Some(_) => {
            Some(Some(query.number("max_consume_count", 0, &limits::MAX_CONSUME_COUNT, codes::MAX_CONSUME_COUNT)?))
        }
    };
    Ok(QueueChange { description, max_consume_count, retention: retention_change(query)? })
}

/// The change of the retention that the parameters ask for. `default` returns to the configuration.
fn retention_change(query: &Query) -> Result<RetentionChange, ApiError> {
    let retention = match query.first("retention_ms") {
        None => None,
        Some("default") => Some(None),
        Some(_) => {
            let millis = query.number("retention_ms", 0, &limits::RETENTION_MS, codes::URL_PARAMETER)?;
            Some(Some(Duration::from_millis(millis)))
        }
    };
    let delete_when_settled = match query.first("delete_when_settled") {
        None => None,
        Some("default") => Some(None),
        Some(_) => Some(Some(query.flag("delete_when_settled", false)?)),
    };
    Ok(RetentionChange { retention, delete_when_settled })
}

/// The queue in the path, by its id or its name. `project` distinguishes queues with the same name.
async fn named(app: &AppState, params: &RawPathParams, query: &Query) -> Result<QueueOverview, ApiError> {
    let wanted = params.iter().find(|(key, _)| *key == "queue_id").map_or("", |(_, value)| value);
    let project = query.first("project");
    let fits = |queue: &QueueOverview| {
        (queue.queue.id.as_str() == wanted || queue.queue.name == wanted)
            && project.is_none_or(|project| queue.project.as_str() == project)
    };
    let mut found = app.broker.overview_of_all().await?.into_iter().filter(fits);
    match (found.next(), found.next()) {
        (None, _) => {
            let place = project.map(|project| format!(" in the project {}", quoted(project))).unwrap_or_default();
            Err(codes::QUEUE_NOT_FOUND.because(format!("There is no queue {}{place}.", quoted(wanted))))
        }
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => {
            let text =
                format!("{} is a queue of several projects: add project, or use the queue's id.", quoted(wanted));
            Err(codes::URL_PARAMETER.because(text))
        }
    }
}

fn group_of<'a>(queue: &'a QueueOverview, wanted: &str) -> Result<&'a GroupOverview, ApiError> {
    let fits = |group: &&GroupOverview| group.group.id.as_str() == wanted || group.group.name == wanted;
    queue.groups.iter().find(fits).ok_or_else(|| {
        let (name, wanted) = (quoted(&queue.queue.name), quoted(wanted));
        codes::GROUP_NOT_FOUND.because(format!("The queue {name} has no group {wanted}."))
    })
}
