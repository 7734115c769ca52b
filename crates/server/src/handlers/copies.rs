//! Checks that a sender may give a message the id of another one: only senders that could have consumed that message may.

use crate::{
    auth::rights::Right,
    broker::NewMessage,
    handlers::request::ApiRequest,
    http::{error::ApiError, path::QueuePath},
};

/// Removes ids that the sender may not give. Such a message gets a new id, and its attributes stay as they were sent.
///
/// Otherwise a sender could hide a message from consumers that remember ids, and have its own messages found, retried and discarded as
/// if they were copies.
pub(crate) async fn check_ids(
    request: &ApiRequest<'_>,
    path: &QueuePath,
    messages: &mut [NewMessage],
) -> Result<(), ApiError> {
    // Nearly no message names an id, and most callers have all rights.
    if messages.iter().all(|message| message.origin.is_none()) {
        return Ok(());
    }
    let Some(limits) = request.caller.limits(request.project) else { return Ok(()) };
    let queues = request.app.broker.queues(&path.project).await?;
    for message in messages {
        let Some(origin) = message.origin else { continue };
        // An id of a queue that is gone, or of another server, is one that consumers of this queue may know.
        let first = queues.iter().find(|queue| origin.is_of(queue.id.as_str()));
        let first = first.or_else(|| queues.iter().find(|queue| queue.id == path.queue));
        if first.is_none_or(|queue| limits.check(Right::Consume, &queue.name).is_err()) {
            message.origin = None;
        }
    }
    Ok(())
}
