//! [`SentMessage`]: what the service answered to a message of a send.

use crate::message::MessageId;

use super::Error;

/// The result of one message of a send, or its own error.
pub type SendOutcome = Result<SentMessage, Error>;

/// A message that the service has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentMessage {
    /// The id of the message, if ids were [requested](super::SendOptions::return_ids).
    pub id: Option<MessageId>,
    /// Whether the service did not store the message, because it has stored one with the same
    /// [deduplication key](crate::Message::deduplication_key) before; the [`id`](Self::id) is then the id of that one. A send that is
    /// repeated because its answer was lost finds its own message, and is a duplicate, too. Always false without a key.
    pub duplicate: bool,
}
