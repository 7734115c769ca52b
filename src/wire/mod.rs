//! The JSON of requests and answers. Limits and meaning are checked elsewhere.
//!
//! Answers are read tolerantly: unknown fields are ignored, and numbers may be text.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::limits::{ACK_WAIT_SECS, MQS_ACK_WAIT_SECS, MQS_POLL_WAIT_SECS, POLL_WAIT_SECS};

pub(crate) mod error;
pub(crate) mod extensions;
pub(crate) mod groups;
pub(crate) mod messages;
pub(crate) mod mqs;
pub(crate) mod overview;
pub(crate) mod queues;
pub(crate) mod received;
pub(crate) mod tags;
mod v1;
mod v2;

pub use mqs::{Content, ContentDecoding, ContentEncoding};

/// The API that a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The API of the DMS queue service, in one of its versions. The default.
    #[default]
    Dms,
    /// The REST API of ROMA Connect MQS: produce, consume and acknowledge, by the names of topics and groups. Messages have a body
    /// and nothing else. There are no labels, delays and dead letters.
    Mqs,
}

impl Dialect {
    /// How long a batch may stay unacknowledged, in seconds.
    pub(crate) fn ack_wait_secs(self) -> RangeInclusive<u64> {
        match self {
            Self::Dms => ACK_WAIT_SECS,
            Self::Mqs => MQS_ACK_WAIT_SECS,
        }
    }

    /// How long a consume call may wait for a first message, in seconds.
    pub(crate) fn poll_wait_secs(self) -> RangeInclusive<u64> {
        match self {
            Self::Dms => POLL_WAIT_SECS,
            Self::Mqs => MQS_POLL_WAIT_SECS,
        }
    }

    /// The words of this API.
    pub(crate) fn wording(self, version: ApiVersion) -> &'static Wording {
        match self {
            Self::Dms => version.wording(),
            Self::Mqs => &mqs::WORDING,
        }
    }
}

/// The version of the API that a client uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ApiVersion {
    /// V2, the recommended one. The default.
    #[default]
    V2,
    /// V1.0, "historical" in the API reference. Some installations have no other.
    V1_0,
}

/// The differences between the versions, and between the APIs.
#[derive(Debug)]
pub(crate) struct Wording {
    /// The API.
    pub(crate) dialect: Dialect,
    /// The first segment of every path.
    pub(crate) prefix: &'static str,
    /// The path of the quotas after the project.
    pub(crate) quotas: &'static str,
    /// The field of a send that requests message ids.
    pub(crate) return_id: &'static str,
    /// The field with the delay of a message.
    pub(crate) delay_time: &'static str,
}

impl ApiVersion {
    pub(crate) fn wording(self) -> &'static Wording {
        match self {
            Self::V2 => &v2::WORDING,
            Self::V1_0 => &v1::WORDING,
        }
    }
}

/// Reads an unsigned number that may be missing, null or text. Negative numbers become zero.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(optional_number(deserializer)?.unwrap_or(0))
}

/// As [`number`], with `None` for a missing number.
fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let negative_is_zero = |number: i64| u64::try_from(number).unwrap_or(0);
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_u64().or_else(|| number.as_i64().map(negative_is_zero))),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => text.trim().parse().map(Some).map_err(D::Error::custom),
        Some(other) => Err(D::Error::custom(format!("a number was expected, not {other}"))),
    }
}

/// Reads text that may be null.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
