//! What an application's answer means for the message.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;

/// The longest pause that an application can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What becomes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Done,
    /// It comes again.
    Retry,
    /// It comes again, and nothing is fetched for this long.
    RetryAfter(Duration),
    /// It can never succeed.
    Reject,
}

/// Reads an answer: 2xx is done; 408, 425, 429 and 5xx come again, after `Retry-After` where it is there; other 4xx are
/// rejected. 3xx is never followed: somebody configured a wrong address, and the message is not to blame.
pub(crate) fn verdict(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Verdict {
    let again = match status.as_u16() {
        200..=299 => return Verdict::Done,
        408 | 425 | 429 | 500..=599 => true,
        400..=499 => return Verdict::Reject,
        _ => false,
    };
    match retry_after(headers, now) {
        Some(pause) if again => Verdict::RetryAfter(pause),
        _ => Verdict::Retry,
    }
}

/// `Retry-After` in seconds or as a date in any of the three forms of RFC 9110, cut to an hour.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn check(status: u16, retry_after: Option<&str>, expected: Verdict) {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        }
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!(verdict(StatusCode::from_u16(status).unwrap(), &headers, now), expected, "{status} {retry_after:?}");
    }

    #[test]
    fn every_class_of_answers_has_its_verdict() {
        [200, 201, 202, 204, 299].into_iter().for_each(|status| check(status, None, Verdict::Done));
        [408, 425, 429, 500, 502, 503, 504, 599].into_iter().for_each(|status| check(status, None, Verdict::Retry));
        [400, 401, 403, 404, 409, 410, 413, 422, 431]
            .into_iter()
            .for_each(|status| check(status, None, Verdict::Reject));
        [301, 302, 303, 307, 308].into_iter().for_each(|status| check(status, Some("3"), Verdict::Retry));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        check(503, Some("7"), Verdict::RetryAfter(Duration::from_secs(7)));
        check(429, Some("Sun, 22 Nov 2026 10:00:30 GMT"), Verdict::RetryAfter(Duration::from_secs(30)));
        check(429, Some("Sunday, 22-Nov-26 10:00:30 GMT"), Verdict::RetryAfter(Duration::from_secs(30)));
        check(429, Some("Sun Nov 22 10:00:30 2026"), Verdict::RetryAfter(Duration::from_secs(30)));
        check(429, Some("Sun, 22 Nov 2026 09:00:00 GMT"), Verdict::RetryAfter(Duration::ZERO));
        check(503, Some("99999999"), Verdict::RetryAfter(Duration::from_secs(3600)));
        check(503, Some("soon"), Verdict::Retry);
        check(400, Some("7"), Verdict::Reject);
    }
}
