//! A message as it is sent again: without the history of its failures, and one redrive older.

use crate::{
    message::{Attributes, Message, ReceivedMessage},
    worker::attributes::{ATTEMPTS, DEFERRED, ERROR, FIRST_FAILURE, LAST_FAILURE, ORIGIN, REASON, WORKER},
};

/// Attribute of a copy: how often the message was redriven.
pub const REDRIVEN: &str = "dms-redriven";

/// The history that a worker wrote on a message: a copy begins without it.
const HISTORY: [&str; 8] = [ATTEMPTS, DEFERRED, ERROR, REASON, WORKER, ORIGIN, FIRST_FAILURE, LAST_FAILURE];

/// The copy of a message that was consumed.
pub(super) fn again(message: &ReceivedMessage) -> Message {
    let mut copy = Message::new(message.body.clone());
    copy.tags.clone_from(&message.tags);
    copy.attributes.clone_from(&message.attributes);
    older(copy)
}

/// The same message as its copy.
pub fn older(mut message: Message) -> Message {
    let times = redriven(&message.attributes).saturating_add(1);
    message.attributes.retain(|name| !HISTORY.contains(&name));
    message.attribute(REDRIVEN, times)
}

/// Whether a message was redriven as often as may be.
pub fn is_exhausted(attributes: &Attributes, max_redrives: u32) -> bool {
    redriven(attributes) >= max_redrives
}

/// How often a message was redriven before.
fn redriven(attributes: &Attributes) -> u32 {
    attributes.get_u64(REDRIVEN).map_or(0, |times| u32::try_from(times).unwrap_or(u32::MAX))
}
