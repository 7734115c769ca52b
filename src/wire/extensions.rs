//! The extensions of this project's server: their announcement, and the parts of requests that use them.

use http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::number;

/// The header in which a service announces its extensions, and a client requests extensions that change an answer.
pub(crate) const EXTENSIONS: HeaderName = HeaderName::from_static("x-dms-extensions");

/// The header with the id of a consume call, by which the call can be ended.
pub(crate) const POLL: HeaderName = HeaderName::from_static("x-dms-poll");

/// The most polls that one call can end.
pub(crate) const MAX_ENDED_POLLS: usize = 100;

/// The announcement of [`Extensions::ALL`], as this project's server writes it.
const NAMES: &[u8] =
    b"end-poll, release, reject, reason, overview, peek, message-id, messages, deduplication, long-delay";

/// The extensions of the documented API that a service announces in the header `x-dms-extensions` of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions(u16);

const END_POLL: u16 = 1;
const RELEASE: u16 = 2;
const REJECT: u16 = 4;
const REASON: u16 = 8;
const OVERVIEW: u16 = 16;
const PEEK: u16 = 32;
const MESSAGE_ID: u16 = 64;
const MESSAGES: u16 = 128;
const DEDUPLICATION: u16 = 256;
const LONG_DELAY: u16 = 512;

impl Extensions {
    /// No extensions.
    pub const NONE: Self = Self(0);
    /// Every extension of this version.
    pub const ALL: Self = Self(
        END_POLL | RELEASE | REJECT | REASON | OVERVIEW | PEEK | MESSAGE_ID | MESSAGES | DEDUPLICATION | LONG_DELAY,
    );

    /// Returns whether a waiting consume call can be ended.
    pub fn end_poll(self) -> bool {
        self.0 & END_POLL > 0
    }

    /// Returns whether messages can be released without a counted failure.
    pub fn release(self) -> bool {
        self.0 & RELEASE > 0
    }

    /// Returns whether a message can be dead-lettered at once.
    pub fn reject(self) -> bool {
        self.0 & REJECT > 0
    }

    /// Returns whether a failure can carry its reason.
    pub fn reason(self) -> bool {
        self.0 & REASON > 0
    }

    /// Returns whether all queues and groups can be shown with one call.
    pub fn overview(self) -> bool {
        self.0 & OVERVIEW > 0
    }

    /// Returns whether messages can be shown without leasing them.
    pub fn peek(self) -> bool {
        self.0 & PEEK > 0
    }

    /// Returns whether a consume answer can have the ids of messages.
    pub fn message_id(self) -> bool {
        self.0 & MESSAGE_ID > 0
    }

    /// Returns whether messages can be found, retried and discarded by their ids.
    pub fn messages(self) -> bool {
        self.0 & MESSAGES > 0
    }

    /// Returns whether messages can have deduplication keys.
    pub fn deduplication(self) -> bool {
        self.0 & DEDUPLICATION > 0
    }

    /// Returns whether a message can be delayed by more than 7 days, up to 366.
    pub fn long_delay(self) -> bool {
        self.0 & LONG_DELAY > 0
    }

    /// Reads the announcement in the headers of an answer; `None` if there is none. Unknown names are ignored.
    pub(crate) fn announced(headers: &HeaderMap) -> Option<Self> {
        headers.get(&EXTENSIONS).map(|value| Self::parse(value.as_bytes()))
    }

    fn parse(list: &[u8]) -> Self {
        // Each answer of a server of this version has this list.
        if list == NAMES {
            return Self::ALL;
        }
        let bit = |name: &[u8]| match name.trim_ascii() {
            b"end-poll" => END_POLL,
            b"release" => RELEASE,
            b"reject" => REJECT,
            b"reason" => REASON,
            b"overview" => OVERVIEW,
            b"peek" => PEEK,
            b"message-id" => MESSAGE_ID,
            b"messages" => MESSAGES,
            b"deduplication" => DEDUPLICATION,
            b"long-delay" => LONG_DELAY,
            _ => 0,
        };
        Self(list.split(|byte| *byte == b',').fold(0, |all, name| all | bit(name)))
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }
}

/// The body of a call that ends polls.
pub(crate) fn encode_end_polls<'a>(polls: impl Iterator<Item = &'a str>) -> Result<Vec<u8>, serde_json::Error> {
    let polls: Vec<&str> = polls.collect();
    serde_json::to_vec(&serde_json::json!({ "polls": polls }))
}

/// Reads its answer: the number of polls that waited.
pub(crate) fn decode_ended(body: &[u8]) -> Result<usize, serde_json::Error> {
    #[derive(Deserialize)]
    struct Ended {
        #[serde(default, deserialize_with = "number")]
        ended: u64,
    }
    serde_json::from_slice(body).map(|Ended { ended }| usize::try_from(ended).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn announcements_are_read_with_tolerance() {
        let parse = |text: &str| Extensions::parse(text.as_bytes());
        let names = str::from_utf8(NAMES).unwrap();
        assert_eq!((parse(names), parse(&names.replace(", ", ","))), (Extensions::ALL, Extensions::ALL));
        assert_eq!(parse(" reason ,fly,,release"), Extensions(RELEASE | REASON));
        assert_eq!(parse(""), Extensions::NONE);
        assert_eq!(Extensions::announced(&HeaderMap::new()), None);
        assert!(parse("reject").reject() && !parse("rejected").reject() && !parse("release").reject());
    }
}
