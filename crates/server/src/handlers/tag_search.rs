//! Finding or counting queues by their tags (OTC documents only).

use std::ops::RangeInclusive;

use serde::Serialize;

use crate::{
    handlers::{queues, request::ApiRequest},
    http::{
        codes::{self, Code},
        error::ApiError,
        json::{self, Json},
    },
};
use dms_protocol::{
    internal::json::{Fault, Scan, excerpt, quoted},
    queue::{Queue, QueueTag},
};

/// The maximum number of records on one page.
const MAX_PAGE: usize = 1000;
/// The maximum number of records that may be skipped.
const MAX_OFFSET: usize = 1_000_000;

/// The body: a filter and a page. The numbers of the page are raw JSON.
#[derive(Debug)]
struct Search<'a> {
    action: String,
    /// The tags that a queue must have.
    tags: Vec<WantedTag>,
    limit: Option<&'a [u8]>,
    offset: Option<&'a [u8]>,
    /// Further conditions: `resource_name`, a part of the name of the queue.
    matches: Vec<QueueTag>,
}

/// A key that a queue must have, with one of these values, or with any value if there are none.
#[derive(Debug)]
struct WantedTag {
    key: String,
    values: Vec<String>,
}

/// The answer. `resources` is missing if queues are only counted.
#[derive(Debug, Serialize)]
pub(crate) struct SearchResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Vec<FoundQueue>>,
    total_count: usize,
}

#[derive(Debug, Serialize)]
struct FoundQueue {
    resource_id: String,
    resource_name: String,
    resource_detail: Option<()>,
    tags: Vec<QueueTag>,
}

/// `POST /queue/resource_instances/action`.
pub(crate) async fn search(request: &ApiRequest<'_>) -> Result<Json<SearchResult>, ApiError> {
    let search = json::read(request.body, search_body)?;
    let listed = match search.action.as_str() {
        "filter" => true,
        "count" => false,
        other => {
            return Err(
                codes::TAG_SEARCH_ACTION.at(format!("action is {}: filter and count are allowed.", quoted(other)))
            );
        }
    };
    let take = page_number("limit", search.limit, 10, 1..=MAX_PAGE, codes::PAGE_LIMIT)?;
    let skip = page_number("offset", search.offset, 0, 0..=MAX_OFFSET, codes::PAGE_OFFSET)?;
    let mut found = Vec::new();
    for queue in queues::seen(request).await? {
        // A queue that was deleted meanwhile has no tags.
        let Ok(tags) = request.app.broker.tags(&request.project_id(), &queue.id).await else { continue };
        if selects(&search.tags, &search.matches, &queue, &tags) {
            found.push(FoundQueue {
                resource_id: queue.id.to_string(),
                resource_name: queue.name,
                resource_detail: None,
                tags,
            });
        }
    }
    let total_count = found.len();
    let resources = listed.then(|| found.into_iter().skip(skip).take(take).collect());
    Ok(Json(SearchResult { resources, total_count }))
}

fn selects(wanted: &[WantedTag], matches: &[QueueTag], queue: &Queue, tags: &[QueueTag]) -> bool {
    let carried = |want: &WantedTag| {
        tags.iter().any(|tag| tag.key == want.key && (want.values.is_empty() || want.values.contains(&tag.value)))
    };
    let named = |part: &QueueTag| part.key != "resource_name" || queue.name.contains(&part.value);
    wanted.iter().all(carried) && matches.iter().all(named)
}

/// Reads a number of the page, which may also be a string of digits.
fn page_number(
    name: &str,
    given: Option<&[u8]>,
    default: usize,
    range: RangeInclusive<usize>,
    code: Code,
) -> Result<usize, ApiError> {
    let Some(given) = given else { return Ok(default) };
    let digits = given.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(given);
    let value = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    value.filter(|value| range.contains(value)).ok_or_else(|| {
        let (shown, least, most) = (excerpt(given), range.start(), range.end());
        code.at(format!("{name} is {shown}: {least} to {most} are allowed."))
    })
}

fn search_body<'a>(scan: &mut Scan<'a>) -> Result<Search<'a>, Fault> {
    let (mut action, mut tags, mut limit, mut offset, mut matches) = (None, None, None, None, None);
    scan.members(|name, scan| match &**name {
        b"action" => name.once(&mut action, scan.owned()?),
        b"tags" => name.once(&mut tags, scan.items(wanted)?),
        b"limit" => name.once(&mut limit, scan.nullable(Scan::value)?),
        b"offset" => name.once(&mut offset, scan.nullable(Scan::value)?),
        b"matches" => name.once(&mut matches, scan.items(part)?),
        _ => scan.value().map(drop),
    })?;
    Ok(Search {
        action: action.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        limit: limit.flatten(),
        offset: offset.flatten(),
        matches: matches.unwrap_or_default(),
    })
}

fn wanted(scan: &mut Scan<'_>) -> Result<WantedTag, Fault> {
    let start = scan.start();
    let (mut key, mut values) = (None, None);
    scan.members(|name, scan| match &**name {
        b"key" => name.once(&mut key, scan.owned()?),
        b"values" => name.once(&mut values, scan.items(Scan::owned)?),
        _ => scan.value().map(drop),
    })?;
    Ok(WantedTag { key: key.ok_or_else(|| Fault::missing("key", start))?, values: values.unwrap_or_default() })
}

fn part(scan: &mut Scan<'_>) -> Result<QueueTag, Fault> {
    let start = scan.start();
    let (mut key, mut value) = (None, None);
    scan.members(|name, scan| match &**name {
        b"key" => name.once(&mut key, scan.owned()?),
        b"value" => name.once(&mut value, scan.owned()?),
        _ => scan.value().map(drop),
    })?;
    let missing = |member| move || Fault::missing(member, start);
    Ok(QueueTag { key: key.ok_or_else(missing("key"))?, value: value.ok_or_else(missing("value"))? })
}
