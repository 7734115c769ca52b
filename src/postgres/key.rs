//! Keys and times in the form in which PostgreSQL stores them.

use std::{borrow::Cow, fmt::Write, time::Duration};

use sha2::{Digest, Sha256};

/// The longest key that is stored as it is. PostgreSQL's indexes take 2,704 bytes at most.
const MAX_KEY: usize = 512;
/// The longest time that is stored: a hundred years, as 'infinity' cannot be added to a time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The key as a text that PostgreSQL can index: long ones, and those with a NUL, are replaced by their hash.
pub(crate) fn stored(key: &str) -> Cow<'_, str> {
    if key.len() <= MAX_KEY && !key.contains('\0') {
        return key.into();
    }
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(key.as_bytes()) {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

/// A time in milliseconds, as a number that can be added to the time of the database.
pub(crate) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_cannot_be_indexed_are_hashed() {
        assert_eq!(stored("order-7"), "order-7");
        assert_eq!(stored(&"x".repeat(MAX_KEY)).len(), MAX_KEY);
        let long = "x".repeat(MAX_KEY + 1);
        assert!(stored(&long).starts_with("sha256:") && stored(&long).len() == 71);
        assert_ne!(stored("a\0b"), stored("a\0c"));
    }

    #[test]
    fn a_time_without_end_fits_into_the_database() {
        assert_eq!(milliseconds(Duration::from_millis(1500)), 1500);
        assert_eq!(milliseconds(Duration::MAX), 3_153_600_000_000);
    }
}
