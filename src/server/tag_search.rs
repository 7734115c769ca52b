//! Finding or counting queues by their tags (OTC documents only).

use serde::{Deserialize, Serialize};

use super::{
    app::App,
    codes::{self, Code},
    error::ApiError,
    json::{self, Json},
};
use crate::queue::{ProjectId, Queue, QueueTag};

/// Records of one page.
const MAX_PAGE: u64 = 1000;
/// Records that may be skipped.
const MAX_OFFSET: u64 = 1_000_000;

/// The body: which queues, and which page of them.
#[derive(Debug, Deserialize)]
struct Search {
    #[serde(default)]
    action: String,
    /// All of them must be carried.
    #[serde(default)]
    tags: Vec<Wanted>,
    limit: Option<PageNumber>,
    offset: Option<PageNumber>,
    /// Beside the tags: `resource_name`, a part of the queue's name.
    #[serde(default)]
    matches: Vec<QueueTag>,
}

/// A key that must be there, with one of these values or with any.
#[derive(Debug, Deserialize)]
struct Wanted {
    key: String,
    #[serde(default)]
    values: Vec<String>,
}

/// A number, or its digits as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PageNumber {
    Number(i64),
    Text(String),
}

/// The answer: `resources` is left out where queues are only counted.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Vec<Resource>>,
    total_count: usize,
}

#[derive(Debug, Serialize)]
struct Resource {
    resource_id: String,
    resource_name: String,
    resource_detail: Option<()>,
    tags: Vec<QueueTag>,
}

/// `POST /queue/resource_instances/action`.
pub(super) async fn search(app: &App, project: &ProjectId, body: &[u8]) -> Result<Json<Found>, ApiError> {
    let search: Search = json::parse(body)?;
    let listed = match search.action.as_str() {
        "filter" => true,
        "count" => false,
        other => return Err(codes::TAG_SEARCH_ACTION.because(format!("action is {other:?}."))),
    };
    let take = page_number(search.limit.as_ref(), 10, 1, MAX_PAGE, codes::PAGE_LIMIT)?;
    let skip = page_number(search.offset.as_ref(), 0, 0, MAX_OFFSET, codes::PAGE_OFFSET)?;
    let mut found = Vec::new();
    for queue in app.broker.queues(project).await? {
        // A queue that was deleted meanwhile is none that carries the tags.
        let Ok(tags) = app.broker.tags(project, &queue.id).await else { continue };
        if selects(&search.tags, &search.matches, &queue, &tags) {
            found.push(Resource {
                resource_id: queue.id.to_string(),
                resource_name: queue.name,
                resource_detail: None,
                tags,
            });
        }
    }
    let total_count = found.len();
    let resources = listed.then(|| found.into_iter().skip(skip).take(take).collect());
    Ok(Json(Found { resources, total_count }))
}

fn selects(wanted: &[Wanted], matches: &[QueueTag], queue: &Queue, tags: &[QueueTag]) -> bool {
    let carried = |want: &Wanted| {
        tags.iter().any(|tag| tag.key == want.key && (want.values.is_empty() || want.values.contains(&tag.value)))
    };
    let named = |part: &QueueTag| part.key != "resource_name" || queue.name.contains(&part.value);
    wanted.iter().all(carried) && matches.iter().all(named)
}

fn page_number(given: Option<&PageNumber>, default: u64, least: u64, most: u64, code: Code) -> Result<usize, ApiError> {
    let value = match given {
        None => Some(default),
        Some(PageNumber::Number(value)) => u64::try_from(*value).ok(),
        Some(PageNumber::Text(text)) => text.parse().ok(),
    };
    let legal = value.filter(|value| (least..=most).contains(value)).and_then(|value| usize::try_from(value).ok());
    legal.ok_or_else(|| code.because(format!("{least} to {most} are allowed.")))
}
