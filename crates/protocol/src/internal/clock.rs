//! The wall clock, for signatures and timestamps. No other code of the library reads it, and it measures no durations.

use jiff::Timestamp;

/// The current time (UTC), to the millisecond, because people read it in logs, attributes and answers.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
