//! [`Identity`]: tells a message from all others, so that something can be remembered about it.
//!
//! Two messages with equal bodies are two messages. So nothing is remembered about a message that has neither a place
//! in its queue, which this project's server sends, nor a key that the user declared unique.

use std::{
    borrow::Cow,
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
};

use crate::{json, message::ReceivedMessage};

/// The number of messages that each table of a worker remembers.
pub(crate) const CAPACITY: usize = 10_000;

/// Tells a message from all others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Its place in the stream, and the time at which it entered the stream. The place alone does not suffice, because after a restore
    /// from a backup the server gives the places of lost messages to others.
    Place(u64, Option<i64>),
    /// The value of the attribute, or the value in the body, that the user named.
    Unique(String),
    /// A hash of its body, where equal bodies need not be distinguished.
    Body(u64),
}

/// Makes hashers of [`Identity`]s for tables in which each message is looked up several times. A place takes two multiplications;
/// the hash of `std` takes as long as a whole look-up. Texts are hashed as `std` does it, because senders choose them, and a quicker
/// hash such as `foldhash` gives no protection from texts whose hashes are equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdentityHash(RandomState);

impl BuildHasher for IdentityHash {
    type Hasher = IdentityHasher;

    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher { texts: self.0.clone(), state: 0 }
    }
}

/// The hasher of an [`IdentityHash`].
pub(crate) struct IdentityHasher {
    texts: RandomState,
    state: u64,
}

impl Hasher for IdentityHasher {
    fn write(&mut self, text: &[u8]) {
        self.write_u64(self.texts.hash_one(text));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // The odd number is 2^64 divided by the golden ratio, which spreads numbers that follow each other.
        self.state = (self.state.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }

    fn write_isize(&mut self, variant: isize) {
        self.write_u64(variant.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        // A table takes the lowest and the highest bits. A product mixes only the highest.
        self.state.rotate_left(26)
    }
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

    use std::collections::HashSet;

    use super::*;
    use crate::message::{Attributes, Body};

    #[test]
    fn places_that_follow_each_other_have_hashes_that_differ_where_a_table_looks() {
        let hash = IdentityHash::default();
        let hashes: Vec<u64> =
            (0..1024).map(|place| hash.hash_one(Identity::Place(place, Some(1_795_964_305_241)))).collect();
        let different = |part: fn(u64) -> u64| hashes.iter().map(|hash| part(*hash)).collect::<HashSet<_>>().len();
        assert!(different(|hash| hash % 1024) > 512, "buckets");
        assert_eq!(different(|hash| hash >> 57), 128, "tags in a bucket");
        let texts = ["a", "b"].map(|text| hash.hash_one(Identity::Unique(text.to_owned())));
        assert_ne!(texts[0], texts[1]);
    }

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
