//! Which right an operation needs. Who has all of them costs nothing here.

use crate::{
    api::resource::Resource,
    auth::{
        caller::{Caller, LimitedRights},
        rights::Right,
    },
    http::{error::ApiError, path::QueuePath},
    state::AppState,
};
use dms_protocol::queue::ProjectId;

/// What a caller needs for an operation.
enum Need<'a> {
    /// Nothing here: a list shows what its caller may see, and the name of a new queue is in the body.
    Nothing,
    /// Any right on the queue of this id.
    Sight(&'a str),
    /// This right on the queue of this id.
    On(Right, &'a str),
    /// This right on any queue.
    Somewhere(Right),
}

/// Checks that a caller may do what it asks for.
///
/// # Errors
/// DMS.10240311 when it may not; what the broker says when the queue is not there.
pub(crate) async fn check(
    app: &AppState,
    caller: &Caller,
    project: &ProjectId,
    method: &str,
    resource: Resource<'_>,
) -> Result<(), ApiError> {
    let Some(limits) = caller.limits(project) else { return Ok(()) };
    match need(method, resource) {
        Need::Nothing => Ok(()),
        Need::Somewhere(right) if limits.rights.allow_somewhere(right) => Ok(()),
        Need::Somewhere(right) => Err(limits.refusal(format_args!("the right {:?} on any queue", right.to_string()))),
        Need::Sight(queue) => {
            let name = name(app, project, queue).await?;
            sight(limits, &name)
        }
        Need::On(right, queue) => limits.check(right, &name(app, project, queue).await?),
    }
}

async fn name(app: &AppState, project: &ProjectId, queue: &str) -> Result<String, ApiError> {
    let path = QueuePath::read(project.clone(), queue)?;
    Ok(app.broker.queue(&path.project, &path.queue).await?.name)
}

fn sight(limits: LimitedRights<'_>, queue: &str) -> Result<(), ApiError> {
    match limits.rights.show(queue) {
        true => Ok(()),
        false => Err(limits.refusal(format_args!("any right on the queue {queue:?}"))),
    }
}

fn need<'a>(method: &str, resource: Resource<'a>) -> Need<'a> {
    use Resource as R;
    match (method, resource) {
        ("POST", R::Messages(queue)) => Need::On(Right::Send, queue),
        (_, R::Consume(queue, ..) | R::Acks(queue, ..)) => Need::On(Right::Consume, queue),
        (_, R::EndPolls) => Need::Somewhere(Right::Consume),
        ("GET", R::Queue(queue) | R::Groups(queue) | R::Tags(queue)) => Need::Sight(queue),
        (
            _,
            R::Queue(queue)
            | R::Groups(queue)
            | R::Group(queue, _)
            | R::Tags(queue)
            | R::TagActions(queue)
            | R::Tag(queue, _)
            | R::Messages(queue),
        ) => Need::On(Right::Manage, queue),
        (_, R::Queues | R::ProjectTags | R::TagSearch | R::Quotas | R::QueueQuota) => Need::Nothing,
        (_, R::Version | R::TokenStore | R::Projects) => Need::Nothing,
    }
}
