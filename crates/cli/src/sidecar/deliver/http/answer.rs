//! What an application's answer means for the message.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use dms_worker::internal::RetryAfter;

/// What becomes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerVerdict {
    /// It is done.
    Done,
    /// It failed and is redelivered.
    Retry,
    /// It is deferred, and fetching pauses for this time.
    RetryAfter(RetryAfter),
    /// It can never succeed.
    Reject,
}

/// Reads an answer: 2xx is done; 408, 425, 429 and 5xx are retried, after `Retry-After` if it is set; other 4xx are
/// rejected. 3xx is never followed: somebody configured a wrong address, and the message is not to blame.
pub(crate) fn verdict(status: StatusCode, headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> AnswerVerdict {
    let again = match status.as_u16() {
        200..=299 => return AnswerVerdict::Done,
        408 | 425 | 429 | 500..=599 => true,
        400..=499 => return AnswerVerdict::Reject,
        _ => false,
    };
    match RetryAfter::read(headers, now()) {
        Some(pause) if again => AnswerVerdict::RetryAfter(pause),
        _ => AnswerVerdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use http::{HeaderValue, header::RETRY_AFTER};

    use super::*;

    fn check(status: u16, retry_after: Option<&str>, expected: AnswerVerdict) {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        }
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!(
            verdict(StatusCode::from_u16(status).unwrap(), &headers, || now),
            expected,
            "{status} {retry_after:?}"
        );
    }

    #[test]
    fn every_class_of_answers_has_its_verdict() {
        [200, 201, 202, 204, 299].into_iter().for_each(|status| check(status, None, AnswerVerdict::Done));
        [408, 425, 429, 500, 502, 503, 504, 599]
            .into_iter()
            .for_each(|status| check(status, None, AnswerVerdict::Retry));
        [400, 401, 403, 404, 409, 410, 413, 422, 431]
            .into_iter()
            .for_each(|status| check(status, None, AnswerVerdict::Reject));
        [301, 302, 303, 307, 308].into_iter().for_each(|status| check(status, Some("3"), AnswerVerdict::Retry));
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_bounded() {
        let pause = |status: u16, text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
            match verdict(StatusCode::from_u16(status).unwrap(), &headers, || now) {
                AnswerVerdict::RetryAfter(asked) => Some(asked.wait()),
                _ => None,
            }
        };
        assert_eq!(pause(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(pause(429, "Sun, 22 Nov 2026 10:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(pause(503, "86400"), Some(Duration::from_secs(300)));
        assert_eq!(pause(503, "Mon, 23 Nov 2026 10:00:00 GMT"), Some(Duration::from_secs(300)));
        check(503, Some("soon"), AnswerVerdict::Retry);
        check(400, Some("7"), AnswerVerdict::Reject);
    }
}
