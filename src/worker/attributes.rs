//! Attributes that this library writes: on the copies that a worker sends (delayed copies of failed or deferred messages, and
//! parked messages), and on messages of an outbox.

use crate::message::{Message, ReceivedMessage};

pub use crate::message::{MESSAGE_ID, SCHEDULE, SCHEDULED_TIME};

/// How many attempts have failed.
pub const ATTEMPTS: &str = "dms-attempts";
/// The text of the last error, of at most 1,000 characters.
pub const ERROR: &str = "dms-error";
/// Why the message failed: `failed`, `rejected`, `undecodable`, `panicked`, `timed_out`.
pub const REASON: &str = "dms-reason";
/// The name of the worker that failed it last.
pub const WORKER: &str = "dms-worker";
/// The name of the queue that it was consumed from.
pub const ORIGIN: &str = "dms-origin";
/// When it failed first (RFC 3339, UTC).
pub const FIRST_FAILURE: &str = "dms-first-failure";
/// When it failed last (RFC 3339, UTC).
pub const LAST_FAILURE: &str = "dms-last-failure";
/// When a handler deferred it (RFC 3339, UTC).
pub const DEFERRED: &str = "dms-deferred";

/// Identifies a message of an `postgres::Outbox`, which can be sent more than once.
pub const DEDUPLICATION_KEY: &str = "dms-deduplication-key";

/// The value of [`REASON`] for a message that cannot be decoded.
pub(crate) const UNDECODABLE: &str = "undecodable";

/// Gives a copy the id of its message. An id in the message's own attributes may be a claim that the server did not accept, so it is
/// replaced.
pub(crate) fn keep_id(copy: &mut Message, message: &ReceivedMessage) {
    if let Some(id) = &message.id {
        copy.attributes.insert(MESSAGE_ID, id.as_str());
    }
}
