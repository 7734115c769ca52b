//! Resource tags of queues (API reference 5.4). They are not the labels of messages.

use http::Method;

use super::{Client, call::Call, error::Error, tries::Repeat};
use crate::{
    limits::{self, LimitError, MAX_QUEUE_TAGS},
    queue::{ProjectTag, QueueId, QueueTag},
    wire,
};

impl Client {
    /// Sets tags of a queue, at most ten (5.4.1). A tag replaces one with the same key.
    ///
    /// # Errors
    /// When a tag is outside its limits, the queue would have more than ten, or the call fails.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn put_tags(&self, queue: &QueueId, tags: &[QueueTag]) -> Result<(), Error> {
        const NAME: &str = "put tags";
        let check = |tag: &QueueTag| limits::tag_key(&tag.key).and_then(|()| limits::tag_value(&tag.value));
        let checked = check_count(tags.len()).and_then(|()| tags.iter().try_for_each(check));
        checked.map_err(|error| Error::limit(NAME, error))?;
        let path = action(queue);
        self.perform(Call::new(NAME, Method::POST, &path, Repeat::Harmless).body(wire::tags::encode_put(tags))?).await
    }

    /// Deletes tags of a queue by key, or by key and value (5.4.1). Missing tags are ignored.
    ///
    /// # Errors
    /// When a key is outside its limits, there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// The service may make the change although the future was dropped.
    pub async fn delete_tags(&self, queue: &QueueId, tags: &[(&str, Option<&str>)]) -> Result<(), Error> {
        const NAME: &str = "delete tags";
        let check = |(key, value): &(&str, Option<&str>)| {
            limits::tag_key(key).and_then(|()| value.map_or(Ok(()), limits::tag_value))
        };
        let checked = check_count(tags.len()).and_then(|()| tags.iter().try_for_each(check));
        checked.map_err(|error| Error::limit(NAME, error))?;
        let path = action(queue);
        let call = Call::new(NAME, Method::POST, &path, Repeat::Harmless).body(wire::tags::encode_delete(tags))?;
        self.perform(call).await
    }

    /// The tags of a queue (5.4.2).
    ///
    /// # Errors
    /// When there is no such queue, or the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn tags(&self, queue: &QueueId) -> Result<Vec<QueueTag>, Error> {
        let path = ["queue", queue.as_str(), "tags"];
        let call = Call::new("show tags", Method::GET, &path, Repeat::Harmless);
        self.fetch(call, |answer| Ok(wire::tags::decode_tags(answer)?)).await
    }

    /// The tags of all queues of the project: each key with its values (5.4.3).
    ///
    /// # Errors
    /// When the call fails.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the call changes nothing.
    pub async fn project_tags(&self) -> Result<Vec<ProjectTag>, Error> {
        let call = Call::new("show project tags", Method::GET, &["queue", "tags"], Repeat::Harmless);
        self.fetch(call, |answer| Ok(wire::tags::decode_project_tags(answer)?)).await
    }
}

/// Unlike in all other paths, `queue` is singular.
fn action(queue: &QueueId) -> [&str; 4] {
    ["queue", queue.as_str(), "tags", "action"]
}

fn check_count(count: usize) -> Result<(), LimitError> {
    limits::in_range("number of tags", count, &(1..=MAX_QUEUE_TAGS), "")
}
