//! Resource tags of queues (API reference 5.4; V1.0 has the same calls).

use serde::{Deserialize, Serialize};

use crate::queue::{ProjectTag, QueueTag};

#[derive(Serialize)]
struct Action<'a, T> {
    action: &'static str,
    tags: &'a [T],
}

/// The body of a call that sets tags.
pub(crate) fn encode_put(tags: &[QueueTag]) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Action { action: "create", tags })
}

/// The body of a call that deletes tags by key, or by key and value.
pub(crate) fn encode_delete(tags: &[(&str, Option<&str>)]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Tag<'a> {
        key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<&'a str>,
    }
    let tags: Vec<_> = tags.iter().map(|&(key, value)| Tag { key, value }).collect();
    serde_json::to_vec(&Action { action: "delete", tags: &tags })
}

#[derive(Deserialize)]
struct List<T> {
    tags: Vec<T>,
}

/// Reads the tags of a queue.
pub(crate) fn decode_tags(body: &[u8]) -> Result<Vec<QueueTag>, serde_json::Error> {
    serde_json::from_slice(body).map(|list: List<_>| list.tags)
}

/// Reads the tags of the project.
pub(crate) fn decode_project_tags(body: &[u8]) -> Result<Vec<ProjectTag>, serde_json::Error> {
    serde_json::from_slice(body).map(|list: List<_>| list.tags)
}
