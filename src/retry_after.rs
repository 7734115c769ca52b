//! [`RetryAfter`]: the wait that the header `Retry-After` of an answer asks for.
//!
//! The wait is bounded, because a proxy may ask for a day, and a client that obeyed would do nothing for a day.

use std::time::Duration;

use http::{HeaderMap, header::RETRY_AFTER};
use jiff::Timestamp;

/// The longest wait that is obeyed.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The wait that a `Retry-After` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    asked: Duration,
}

impl RetryAfter {
    /// Reads the header: seconds, or a date in any of the three forms of RFC 9110. Returns `None` if it is missing or
    /// malformed.
    pub fn read(headers: &HeaderMap, now: Timestamp) -> Option<Self> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // A number that does not fit is a very long wait.
            Duration::from_secs(text.parse().unwrap_or(u64::MAX))
        } else {
            let date = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        };
        Some(Self { asked })
    }

    /// The wait, at most [`MAX_RETRY_AFTER`].
    pub fn wait(self) -> Duration {
        self.asked.min(MAX_RETRY_AFTER)
    }

    /// The wait that was asked for, if it is longer than [`wait`](Self::wait).
    pub fn shortened(self) -> Option<Duration> {
        (self.asked > MAX_RETRY_AFTER).then_some(self.asked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn read(text: &str) -> Option<RetryAfter> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        RetryAfter::read(&headers, "2026-11-22T10:00:00Z".parse().unwrap())
    }

    #[test]
    fn it_is_seconds_or_a_date() {
        let wait = |text: &str| read(text).map(|asked| asked.wait().as_secs());
        assert_eq!(wait(" 7 "), Some(7));
        assert_eq!(wait("Sun, 22 Nov 2026 10:00:30 GMT"), Some(30));
        assert_eq!(wait("Sunday, 22-Nov-26 10:00:30 GMT"), Some(30));
        assert_eq!(wait("Sun Nov 22 10:00:30 2026"), Some(30));
        assert_eq!(wait("Sun, 22 Nov 2026 09:00:00 GMT"), Some(0), "the time has come");
        for text in ["", "soon", "-5", "1.5", "0x10"] {
            assert_eq!(wait(text), None, "{text:?}");
        }
        assert_eq!(RetryAfter::read(&HeaderMap::new(), Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn nobody_waits_longer_than_five_minutes() {
        let cut = |text: &str| read(text).map(|asked| (asked.wait().as_secs(), asked.shortened().is_some()));
        assert_eq!(cut("300"), Some((300, false)));
        for text in ["301", "86400", "18446744073709551615", "99999999999999999999999", "Mon, 23 Nov 2026 10:00:00 GMT"]
        {
            assert_eq!(cut(text), Some((300, true)), "{text}");
        }
    }
}
