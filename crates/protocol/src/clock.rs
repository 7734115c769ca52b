//! The one place that reads the wall clock: for signatures, timestamps and retention, never to measure a duration.

use jiff::Timestamp;

/// The time of day, UTC.
pub fn now() -> Timestamp {
    Timestamp::now()
}
