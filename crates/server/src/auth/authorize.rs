//! Authorization: whether the rights of a caller allow what a route does.

use crate::{
    auth::{caller::Caller, rights::Right},
    broker::Broker,
    http::{error::ApiError, path::QueuePath},
};
use dms_protocol::queue::ProjectId;

/// The credentials and rights that a route requires of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: callers need no credentials.
    Public,
    /// Credentials for the project. Handlers of lists leave out what the caller may not see, and the handler that creates a
    /// queue checks its name.
    Project,
    /// Any right on the queue in the path.
    SeeQueue,
    /// This right on the queue in the path.
    Queue(Right),
    /// This right on at least one queue.
    AnyQueue(Right),
    /// This right on the queue that the path names by its name. The router checks it, because only the router knows the name.
    Topic(Right),
}

/// Checks the rights of a caller in a project. `queue` is the id in the path, for routes of one queue.
///
/// A caller with all rights is admitted without a lookup.
///
/// # Errors
/// DMS.10240311 when the caller lacks a right, and the broker's error when the queue does not exist.
pub(crate) async fn authorize(
    broker: &dyn Broker,
    caller: &Caller,
    project: &str,
    access: Access,
    queue: &str,
) -> Result<(), ApiError> {
    let Some(limited) = caller.limits(project) else { return Ok(()) };
    match access {
        Access::Public | Access::Project | Access::Topic(_) => Ok(()),
        Access::AnyQueue(right) => limited.check_any(right),
        Access::SeeQueue => limited.check_sight(&queue_name(broker, project, queue).await?),
        Access::Queue(right) => limited.check(right, &queue_name(broker, project, queue).await?),
    }
}

async fn queue_name(broker: &dyn Broker, project: &str, queue: &str) -> Result<String, ApiError> {
    let path = QueuePath::read(ProjectId::new(project), queue)?;
    Ok(broker.queue(&path.project, &path.queue).await?.name)
}
