//! [`MessagePlaces`]: where a message is, as this project's server answers it (`GET /messages/{message_id}`). An extension of the
//! API: other services have no such call.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::DeadLetterInfo;

/// The places where a message and its copies are: a queue, its delayed messages, and the dead letters of groups.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessagePlaces {
    /// The id of the message.
    pub id: String,
    /// Whether everything was searched. If not, copies may be behind many other messages.
    pub complete: bool,
    /// The places; empty if the message is unknown, or was deleted.
    pub places: Vec<MessagePlace>,
}

/// One place of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessagePlace {
    /// The kind of place.
    pub place: PlaceKind,
    /// The id of the queue.
    pub queue_id: String,
    /// The name of the queue.
    pub queue: String,
    /// The sequence number there.
    pub sequence: u64,
    /// When the message entered this place, in Unix milliseconds. In a delay queue: when the delay ends.
    pub entered: i64,
    /// The state for each group; for a dead letter, only for its group.
    pub groups: Vec<StateForGroup>,
    /// The message with its body and attributes.
    pub message: Box<RawValue>,
}

/// The kind of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// A queue.
    Queue,
    /// The messages of a queue whose delay has not ended.
    Delayed,
    /// The dead letters of a group.
    DeadLetters,
}

impl PlaceKind {
    /// `queue`, `delayed` or `dead_letters`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Delayed => "delayed",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// The state of a message for a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateForGroup {
    /// The id of the group.
    pub group_id: String,
    /// The name of the group.
    pub group: String,
    /// `available`, `leased`, `settled`, `skipped` by the label rule, or `damaged`.
    pub state: String,
    /// The number of failed deliveries so far.
    pub failures: u32,
    /// The time until the lease ends, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// When the lease began, in Unix milliseconds. `None` if it began on another server of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_since: Option<i64>,
    /// How often consumers got the message, the lease of now included. Deliveries that counted no failure are known since the server
    /// started.
    #[serde(default)]
    pub handed_out: u32,
    /// The last leases that did not settle the message, in order: at most 10, since the server started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Why and when it failed last, if it did since the server started: the same members as those of a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<DeadLetterInfo>,
    /// Why and when it became a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterInfo>,
}

/// One lease of a message that ended without settling it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the lease began, in Unix milliseconds. `None` if it began on another server of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<i64>,
    /// When it ended, in Unix milliseconds.
    pub ended: i64,
    /// `failed`, `lease_expired`, `batch_failed`, or `released` if no failure was counted.
    pub end: String,
}
