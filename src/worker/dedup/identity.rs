//! [`Identity`]: tells a message from all others, so that something can be remembered about it.
//!
//! Two messages with equal bodies are two messages. So nothing is remembered about a message that has neither a place
//! in its queue, which this project's server sends, nor an attribute that the user declared unique.

use crate::message::ReceivedMessage;

/// The number of messages that each table of a worker remembers.
pub(crate) const CAPACITY: usize = 10_000;

/// Tells a message from all others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity {
    /// Its place in the stream, and the time at which it entered the stream. The place alone does not suffice, because after a restore
    /// from a backup the server gives the places of lost messages to others.
    Place(u64, Option<i64>),
    /// The value of the attribute that the user named.
    Unique(String),
}

impl Identity {
    /// The identity of a message, if it has one. A unique attribute takes precedence over the place.
    pub(crate) fn of(message: &ReceivedMessage, unique_attribute: Option<&str>) -> Option<Self> {
        match unique_attribute {
            Some(name) => message.attributes.get(name).map(|value| Self::Unique(value.get().to_owned())),
            None => message.sequence.map(|sequence| Self::Place(sequence, message.entered_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Attributes, Body};

    #[test]
    fn a_message_is_known_by_its_unique_attribute_or_by_its_place_and_time() {
        let attributes = Attributes::from_iter([("id", "a")]);
        let mut message = ReceivedMessage::new(Body::json(&1).unwrap(), attributes, Vec::new(), "h");
        assert_eq!(Identity::of(&message, None), None);
        (message.sequence, message.entered_ms) = (Some(7), Some(5));
        let known = Identity::of(&message, None);
        message.entered_ms = Some(6);
        assert_ne!(Identity::of(&message, None), known, "another message in the same place");
        assert_eq!(Identity::of(&message, Some("id")), Some(Identity::Unique("\"a\"".to_owned())));
        assert_eq!(Identity::of(&message, Some("other")), None);
    }
}
