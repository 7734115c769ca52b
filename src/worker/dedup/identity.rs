//! [`Identity`]: tells a message from all others, so that something can be remembered about it.
//!
//! Two messages with equal bodies are two messages. So nothing is remembered about a message that has neither a place
//! in its queue, which this project's server sends, nor a key that the user declared unique.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

use crate::{json, message::ReceivedMessage};

/// The number of messages that each table of a worker remembers.
pub(crate) const CAPACITY: usize = 10_000;

/// Tells a message from all others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity {
    /// Its place in the stream, and the time at which it entered the stream. The place alone does not suffice, because after a restore
    /// from a backup the server gives the places of lost messages to others.
    Place(u64, Option<i64>),
    /// The value of the attribute, or the value in the body, that the user named.
    Unique(String),
    /// A hash of its body, where equal bodies need not be distinguished.
    Body(u64),
}

/// A part of each message that the user declared unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UniqueKey {
    /// The attribute of this name.
    Attribute(String),
    /// The text or number at this JSON pointer into the body.
    Pointer(String),
}

impl UniqueKey {
    fn of<'a>(&self, message: &'a ReceivedMessage) -> Option<Cow<'a, str>> {
        match self {
            Self::Attribute(name) => message.attributes.get(name).map(|value| value.get().into()),
            Self::Pointer(pointer) => json::text_at(message.body.as_str(), pointer),
        }
    }
}

impl Identity {
    /// The identity of a message, if it has one. A unique key takes precedence over the place.
    pub(crate) fn of(message: &ReceivedMessage, unique_key: Option<&UniqueKey>) -> Option<Self> {
        match unique_key {
            Some(key) => key.of(message).map(|value| Self::Unique(value.into_owned())),
            None => message.sequence.map(|sequence| Self::Place(sequence, message.entered_ms)),
        }
    }

    /// The identity of all messages with an equal body.
    pub(crate) fn of_body(message: &ReceivedMessage) -> Self {
        let mut hasher = DefaultHasher::new();
        message.body.as_bytes().hash(&mut hasher);
        Self::Body(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Attributes, Body};

    #[test]
    fn a_message_is_known_by_its_unique_key_or_by_its_place_and_time() {
        let attributes = Attributes::from_iter([("id", "a")]);
        let body = Body::raw(r#"{"order":{"id":7}}"#).unwrap();
        let mut message = ReceivedMessage::new(body, attributes, Vec::new(), "h");
        assert_eq!(Identity::of(&message, None), None);
        (message.sequence, message.entered_ms) = (Some(7), Some(5));
        let known = Identity::of(&message, None);
        message.entered_ms = Some(6);
        assert_ne!(Identity::of(&message, None), known, "another message in the same place");
        let attribute = |name: &str| UniqueKey::Attribute(name.to_owned());
        assert_eq!(Identity::of(&message, Some(&attribute("id"))), Some(Identity::Unique("\"a\"".to_owned())));
        assert_eq!(Identity::of(&message, Some(&attribute("other"))), None);
        let pointer = |text: &str| UniqueKey::Pointer(text.to_owned());
        assert_eq!(Identity::of(&message, Some(&pointer("/order/id"))), Some(Identity::Unique("7".to_owned())));
        assert_eq!(Identity::of(&message, Some(&pointer("/order"))), None);
    }
}
