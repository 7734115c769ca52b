//! The copy of a message for a redrive: without the history of its failures, and with its redrives counted.

use crate::{
    client::Client,
    message::{Attributes, Message, ReceivedMessage},
    wire::Dialect,
    worker::attributes::{
        ATTEMPTS, DEFERRED, ERROR, FIRST_FAILURE, LAST_FAILURE, MESSAGE_ID, ORIGIN, REASON, WORKER, keep_id,
    },
};

/// The attribute with the number of redrives of a message.
pub const REDRIVEN: &str = "dms-redriven";

/// The attributes in which workers record failures. A copy starts without them.
const HISTORY: [&str; 8] = [ATTEMPTS, DEFERRED, ERROR, REASON, WORKER, ORIGIN, FIRST_FAILURE, LAST_FAILURE];

/// The copy of a message that was consumed.
pub(super) fn again(message: &ReceivedMessage) -> Message {
    as_redriven(unchanged(message))
}

/// The message itself, to be sent elsewhere.
pub(super) fn unchanged(message: &ReceivedMessage) -> Message {
    let mut copy = Message::new(message.body.clone());
    copy.tags.clone_from(&message.tags);
    copy.attributes.clone_from(&message.attributes);
    keep_id(&mut copy, message);
    copy
}

/// Turns a message into the copy that a redrive sends: without the history of failures, and with one more redrive counted.
pub fn as_redriven(mut message: Message) -> Message {
    let times = redriven(&message.attributes).saturating_add(1);
    message.attributes.retain(|name| !HISTORY.contains(&name));
    message.attribute(REDRIVEN, times)
}

/// Removes what this library added to the attributes of a copy if the service of the client carries none. Attributes of the message
/// itself stay, so that such a copy is refused and nothing is lost.
pub fn without_unsupported(client: &Client, mut copy: Message) -> Message {
    if client.dialect() == Dialect::Mqs {
        copy.attributes.retain(|name| name != REDRIVEN && name != MESSAGE_ID);
    }
    copy
}

/// Returns whether a message was redriven the most times that are allowed.
pub fn is_exhausted(attributes: &Attributes, max_redrives: u32) -> bool {
    redriven(attributes) >= max_redrives
}

/// The number of redrives of a message.
fn redriven(attributes: &Attributes) -> u32 {
    attributes.get_u64(REDRIVEN).map_or(0, |times| u32::try_from(times).unwrap_or(u32::MAX))
}
