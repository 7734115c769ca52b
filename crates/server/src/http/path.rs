//! The queue and the group in a path, with their ids checked.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::{
    broker::{Broker, GroupPath},
    http::{codes, error::ApiError, query::Query},
};
use dms_protocol::queue::{GroupId, ProjectId, QueueId};

/// A queue of a project.
#[derive(Clone, Debug)]
pub(crate) struct QueuePath {
    /// The project.
    pub(crate) project: ProjectId,
    /// The queue.
    pub(crate) queue: QueueId,
}

impl QueuePath {
    /// The queue with this id.
    ///
    /// # Errors
    /// DMS.10240015 when the id is not a UUID.
    pub(crate) fn read(project: ProjectId, queue: &str) -> Result<Self, ApiError> {
        Ok(Self { project, queue: queue_id(&decoded(queue)?)? })
    }
}

impl GroupPath {
    /// The group and the queue with these ids.
    ///
    /// # Errors
    /// DMS.10240015 or DMS.10240016 when an id is malformed, and the error of the broker when the queue does not exist.
    pub(crate) async fn read(
        broker: &dyn Broker,
        project: ProjectId,
        [queue, group]: [&str; 2],
    ) -> Result<Self, ApiError> {
        let (queue, group) = (decoded(queue)?, decoded(group)?);
        let queue = queue_id(&queue)?;
        if !is_group_id(&group) {
            // A missing queue is reported before a malformed group id.
            broker.queue(&project, &queue).await?;
            return Err(codes::GROUP_ID_FORMAT.because(format!("{:?} is not `g-` and a UUID.", shorten(&group))));
        }
        Ok(Self { project, queue, group: GroupId::new(&*group) })
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// A percent-decoded segment of a path.
///
/// # Errors
/// DMS.10240406 when it is not UTF-8.
pub(crate) fn decoded(name: &str) -> Result<Cow<'_, str>, ApiError> {
    if !name.contains('%') {
        return Ok(Cow::Borrowed(name));
    }
    percent_decode_str(name).decode_utf8().map_err(|_| codes::URL_NOT_FOUND.because("The path is not UTF-8."))
}

fn queue_id(text: &str) -> Result<QueueId, ApiError> {
    if is_uuid(text) {
        return Ok(QueueId::new(text));
    }
    Err(codes::QUEUE_ID_FORMAT.because(format!("{:?} is not a UUID.", shorten(text))))
}

fn is_group_id(text: &str) -> bool {
    text.strip_prefix("g-").is_some_and(is_uuid)
}

/// Whether `text` is a hyphenated UUID: 8-4-4-4-12 hex digits.
fn is_uuid(text: &str) -> bool {
    let place = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(place)
}

/// The first 80 characters of a text, for an error.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hyphenated_uuids() {
        assert!(is_uuid("9bf46390-38a2-462d-b392-4d5b2d519c55"));
        assert!(is_group_id("g-02fb1974-9be1-4eee-8448-ed2d3e89884a"));
        for bad in ["", "orders", "9bf4639038a2462db3924d5b2d519c55", "9bf46390-38a2-462d-b392-4d5b2d519c5g"] {
            assert!(!is_uuid(bad), "{bad:?} passed");
        }
        assert!(!is_group_id("02fb1974-9be1-4eee-8448-ed2d3e89884a"));
    }
}
