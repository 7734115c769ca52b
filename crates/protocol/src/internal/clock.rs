//! The wall clock, for signatures and timestamps. No other code of the library reads it, and it measures no durations.

use jiff::Timestamp;

/// The current time (UTC).
pub fn now() -> Timestamp {
    Timestamp::now()
}
