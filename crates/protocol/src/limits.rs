//! The documented limits of the service, and checks whose errors name the limit and the value.
//!
//! The client checks them before a request, the server before a change.
//!
//! # Examples
//! ```
//! use dms_protocol::limits;
//!
//! assert!(limits::queue_name("orders-2026").is_ok());
//! let error = limits::queue_name("orders 2026").unwrap_err();
//! assert_eq!(error.to_string(), r#"queue name is "orders 2026": 1 to 64 of A-Z a-z 0-9 _ - are allowed"#);
//! ```

use std::{ops::RangeInclusive, time::Duration};

/// The largest sum of message bodies in one send or consume, in bytes (API reference 5.3.1, 5.3.2).
pub const MAX_BYTES: usize = 524_288;
/// Messages in one send, consume or acknowledgement (5.3.1, 5.3.2).
pub const MAX_MESSAGES: usize = 10;
/// The deepest nesting of a body and of a message's attributes, in levels. An answer adds three levels, and common
/// parsers read at least 64. The reference does not mention a limit.
pub const MAX_NESTING: usize = 60;
/// How long a consume call may wait for a first message, in seconds (5.3.2, `time_wait`; default 3).
pub const POLL_WAIT_SECS: RangeInclusive<u64> = 1..=60;
/// How long a consumed batch may stay unacknowledged, in seconds (5.3.2, `ack_wait`; default 30).
pub const ACK_WAIT_SECS: RangeInclusive<u64> = 15..=300;
/// The longest delay of a message: seven days (5.3.1, `delay_time`).
pub const MAX_DELAY: Duration = Duration::from_millis(604_800_000);
/// The longest delay of a message for this project's server, on request: 366 days.
pub const MAX_LONG_DELAY: Duration = Duration::from_secs(366 * 86_400);
/// The longest deduplication key of a message, in bytes. Only this project's server takes such keys.
pub const MAX_DEDUPLICATION_KEY: usize = 512;
/// How long a deduplication key counts by default: five minutes.
pub const DEDUPLICATION_WINDOW: Duration = Duration::from_secs(300);
/// The shortest time that a deduplication key may count: one second.
pub const MIN_DEDUPLICATION_WINDOW: Duration = Duration::from_secs(1);
/// The longest time that a deduplication key may count: seven days.
pub const MAX_DEDUPLICATION_WINDOW: Duration = MAX_DELAY;
/// Labels of one message, and labels of one filter (5.3.1, 5.3.2).
pub const MAX_LABELS: usize = 3;
/// The longest label, in characters (5.3.1).
pub const MAX_LABEL_CHARS: usize = 64;
/// The longest queue name, in characters (5.1.1).
pub const MAX_QUEUE_NAME: usize = 64;
/// The longest group name, in characters (5.2.1).
pub const MAX_GROUP_NAME: usize = 32;
/// The maximum length of the name of a schedule.
pub const MAX_SCHEDULE_NAME: usize = 64;
/// The maximum number of schedules of a queue.
pub const MAX_SCHEDULES: usize = 100;
/// The maximum size of a schedule's message: its body and its attributes as JSON, in bytes.
pub const MAX_SCHEDULED_BYTES: usize = 65_536;
/// The longest queue description, in characters (5.1.1).
pub const MAX_DESCRIPTION: usize = 160;
/// Failed consumptions before a message becomes a dead letter (5.1.1, `max_consume_count`).
pub const MAX_CONSUME_COUNT: RangeInclusive<u32> = 1..=100;
/// How long a Kafka queue keeps messages, in hours (5.1.1, `retention_hours`).
pub const RETENTION_HOURS: RangeInclusive<u32> = 1..=72;
/// The retention that can be set on this project's server, in milliseconds. The maximum is the documented retention
/// (5.1.2).
pub const RETENTION_MS: RangeInclusive<u64> = 1_000..=72 * 3_600_000;
/// Groups in one creation request, and groups of one queue by default (5.2.1).
pub const MAX_GROUPS: usize = 3;
/// Resource tags of one queue (error DMS.10240044).
pub const MAX_QUEUE_TAGS: usize = 10;
/// The longest resource tag key, in characters (5.4.1).
pub const MAX_TAG_KEY: usize = 36;
/// The longest resource tag value, in characters (5.4.1).
pub const MAX_TAG_VALUE: usize = 43;
/// The largest sum of contents in one produce or consume of ROMA Connect MQS, in bytes.
pub const MAX_MQS_BYTES: usize = 2_097_152;
/// How long a consume call of MQS may wait for a first message, in seconds (`time_wait`; default 3).
pub const MQS_POLL_WAIT_SECS: RangeInclusive<u64> = 1..=30;
/// How long a batch of MQS may stay unacknowledged, in seconds (`ack_wait`; default 15).
pub const MQS_ACK_WAIT_SECS: RangeInclusive<u64> = 1..=300;
/// The longest group name of MQS, in characters.
pub const MAX_MQS_GROUP_NAME: usize = 249;
/// The most messages that a worker may have in flight (a limit of this project's worker).
pub const MAX_CONCURRENCY: usize = 100_000;
/// The most concurrent polls of a worker (a limit of this project's worker).
pub const MAX_POLLERS: usize = 1_000;
/// The most messages that a producer may hold (a limit of this project's producer).
pub const MAX_PENDING: usize = 1_000_000;
/// The longest linger of a producer (a limit of this project's producer).
pub const MAX_LINGER: Duration = Duration::from_secs(60);
/// The longest id of a consume call, in characters (an extension of this project's server).
pub const MAX_POLL_ID: usize = 64;

/// The error of a check: which value is outside of which limit. The message is one sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}: {allowed}")]
pub struct LimitError {
    /// The checked thing, such as "queue name".
    pub what: &'static str,
    /// The value found, as text.
    pub value: String,
    /// The allowed values, as text.
    pub allowed: String,
}

impl LimitError {
    fn new(what: &'static str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { what, value: value.into(), allowed: allowed.into() }
    }

    /// The error as a sentence about `place`, such as a configuration key.
    pub fn of(&self, place: impl std::fmt::Display) -> String {
        // The value is a length then, which is not the value of the place.
        let long = if self.what.starts_with("length") { " characters long" } else { "" };
        format!("{place} is {}{long}: {}.", self.value, self.allowed)
    }
}

/// Checks that `value` lies in `range`.
///
/// # Errors
/// Names `what`, the value and the range.
pub fn in_range<T>(what: &'static str, value: T, range: &RangeInclusive<T>, unit: &str) -> Result<(), LimitError>
where
    T: PartialOrd + ToString + Copy,
{
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("{} to {}{unit} are allowed", range.start().to_string(), range.end().to_string());
    Err(LimitError::new(what, value.to_string(), allowed))
}

/// Checks a time against a range of seconds. Fractions count: 300.9 s is more than 300 s.
///
/// # Errors
/// Names `what`, the time and the range.
pub fn seconds(what: &'static str, time: Duration, range: &RangeInclusive<u64>) -> Result<(), LimitError> {
    let (least, most) = (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
    if (least..=most).contains(&time) {
        return Ok(());
    }
    let allowed = format!("{} to {} s are allowed", range.start(), range.end());
    Err(LimitError::new(what, format!("{time:?}"), allowed))
}

/// Rounds a time up to whole seconds, as the API requires.
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// Checks a queue name (5.1.1).
///
/// # Errors
/// When it is not 1-64 of `A-Z a-z 0-9 _ -`.
pub fn queue_name(name: &str) -> Result<(), LimitError> {
    word("queue name", name, MAX_QUEUE_NAME)
}

/// Checks the name of a schedule.
///
/// # Errors
/// When it is not 1-64 of `A-Z a-z 0-9 _ -`.
pub fn schedule_name(name: &str) -> Result<(), LimitError> {
    word("schedule name", name, MAX_SCHEDULE_NAME)
}

/// Checks a pattern of queue names, in which `*` matches any text.
///
/// # Errors
/// When no queue can have a name like this.
pub fn queue_pattern(pattern: &str) -> Result<(), LimitError> {
    let shortest = pattern.replace('*', "");
    let any = shortest.is_empty() && !pattern.is_empty();
    if any || queue_name(&shortest).is_ok() {
        return Ok(());
    }
    let allowed = "write a queue's name, with * for any part of it";
    Err(LimitError::new("pattern of queue names", format!("{pattern:?}"), allowed))
}

/// Checks the name of an access key, which stands in the `Authorization` header, between commas.
///
/// # Errors
/// When it is empty, or has other characters than visible ASCII characters, or a comma.
pub fn access_key(name: &str) -> Result<(), LimitError> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Ok(());
    }
    let allowed = "visible ASCII characters except the comma are";
    Err(LimitError::new("access key", format!("{name:?}"), allowed))
}

/// Checks a group name (5.2.1).
///
/// # Errors
/// When it is not 1-32 of `A-Z a-z 0-9 _ -`.
pub fn group_name(name: &str) -> Result<(), LimitError> {
    word("group name", name, MAX_GROUP_NAME)
}

/// Checks the name of a consumer group of ROMA Connect MQS.
///
/// # Errors
/// When it is not 1-249 of `A-Z a-z 0-9 _ -`.
pub fn mqs_group_name(name: &str) -> Result<(), LimitError> {
    word("group name", name, MAX_MQS_GROUP_NAME)
}

/// Checks the labels of a message or a filter (5.3.1, 5.3.2).
///
/// # Errors
/// When there are more than three, or one is not 1-64 of `A-Z a-z 0-9 _ -`.
pub fn labels<T: AsRef<str>>(labels: &[T]) -> Result<(), LimitError> {
    if labels.len() > MAX_LABELS {
        return Err(LimitError::new(
            "number of labels",
            labels.len().to_string(),
            format!("at most {MAX_LABELS} are allowed"),
        ));
    }
    labels.iter().try_for_each(|label| word("label", label.as_ref(), MAX_LABEL_CHARS))
}

/// Checks the id of a consume call, an extension of this project's server.
///
/// # Errors
/// When it is not 1-64 of `A-Z a-z 0-9 _ -`.
pub fn poll_id(id: &str) -> Result<(), LimitError> {
    word("poll id", id, MAX_POLL_ID)
}

/// Checks the reason of a failed message, an extension of this project's server.
///
/// # Errors
/// When it is not 1-64 of `a-z 0-9 _ -`. An empty text means no reason and passes.
pub fn reason(reason: &str) -> Result<(), LimitError> {
    const MAX_REASON: usize = 64;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if reason.len() <= MAX_REASON && reason.bytes().all(legal) {
        return Ok(());
    }
    let shown: String = reason.chars().take(80).collect();
    Err(LimitError::new("reason", format!("{shown:?}"), format!("1 to {MAX_REASON} of a-z 0-9 _ - are allowed")))
}

/// Checks a message's delay (5.3.1). Delays above seven days are for this project's server only.
///
/// # Errors
/// When it is above 366 days.
pub fn delay(delay: Duration) -> Result<(), LimitError> {
    if delay <= MAX_LONG_DELAY {
        return Ok(());
    }
    let allowed = "0 to 604800000 ms (7 days) are allowed, and 366 days by the server of this project";
    Err(LimitError::new("delay", in_days(delay), allowed))
}

/// A duration as it was probably given: `900 d`, and everything but whole days in seconds.
fn in_days(duration: Duration) -> String {
    let days = duration.as_secs() / 86_400;
    if days > 0 && Duration::from_secs(days * 86_400) == duration {
        format!("{days} d")
    } else {
        format!("{duration:?}")
    }
}

/// Checks a message's deduplication key, and how long it counts.
///
/// # Errors
/// When the key is empty or too long, or the window is below one second, above seven days, or without a key.
pub fn deduplication(key: Option<&str>, window: Option<Duration>) -> Result<(), LimitError> {
    let Some(key) = key else {
        let Some(window) = window else { return Ok(()) };
        return Err(LimitError::new("deduplication window", in_days(window), "a deduplication key is needed"));
    };
    if !(1..=MAX_DEDUPLICATION_KEY).contains(&key.len()) {
        let allowed = format!("1 to {MAX_DEDUPLICATION_KEY} bytes are allowed");
        return Err(LimitError::new("deduplication key", format!("{} bytes long", key.len()), allowed));
    }
    let window = window.unwrap_or(DEDUPLICATION_WINDOW);
    if (MIN_DEDUPLICATION_WINDOW..=MAX_DEDUPLICATION_WINDOW).contains(&window) {
        return Ok(());
    }
    Err(LimitError::new("deduplication window", in_days(window), "1 s to 7 days are allowed"))
}

/// Checks that a delay is not above another.
///
/// # Errors
/// When it is.
pub fn delay_up_to(what: &'static str, delay: Duration, most: Duration) -> Result<(), LimitError> {
    if delay <= most {
        return Ok(());
    }
    Err(LimitError::new(what, format!("{delay:?}"), format!("up to {most:?} are allowed")))
}

/// Checks the number of messages of one request (5.3.1).
///
/// # Errors
/// When there are none or more than ten.
pub fn message_count(count: usize) -> Result<(), LimitError> {
    in_range("number of messages", count, &(1..=MAX_MESSAGES), "")
}

/// Checks the sum of the body sizes of one request (5.3.1).
///
/// # Errors
/// When it is above 524 288 bytes.
pub fn total_bytes(bytes: usize) -> Result<(), LimitError> {
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(LimitError::new(
        "size of the messages",
        format!("{bytes} bytes"),
        format!("at most {MAX_BYTES} bytes are allowed"),
    ))
}

/// Checks a queue's description (5.1.1).
///
/// # Errors
/// When it has more than 160 characters, or `<` or `>`.
pub fn description(text: &str) -> Result<(), LimitError> {
    if text.chars().count() > MAX_DESCRIPTION {
        return Err(LimitError::new(
            "description",
            format!("{} characters long", text.chars().count()),
            format!("at most {MAX_DESCRIPTION} are allowed"),
        ));
    }
    match text.find(['<', '>']) {
        Some(_) => Err(LimitError::new("description", format!("{text:?}"), "`<` and `>` are not allowed")),
        None => Ok(()),
    }
}

/// Checks the key of a resource tag (5.4.1).
///
/// # Errors
/// When it is not 1-36 characters, or has a forbidden one.
pub fn tag_key(key: &str) -> Result<(), LimitError> {
    in_range("length of the tag key", key.chars().count(), &(1..=MAX_TAG_KEY), " characters")?;
    tag_text("tag key", key)
}

/// Checks the value of a resource tag (5.4.1).
///
/// # Errors
/// When it has more than 43 characters, or a forbidden one.
pub fn tag_value(value: &str) -> Result<(), LimitError> {
    in_range("length of the tag value", value.chars().count(), &(0..=MAX_TAG_VALUE), " characters")?;
    tag_text("tag value", value)
}

fn tag_text(what: &'static str, text: &str) -> Result<(), LimitError> {
    let forbidden = |c: char| c < ' ' || "=*<>\\,|/".contains(c);
    if text.contains(forbidden) {
        return Err(LimitError::new(what, format!("{text:?}"), r"ASCII 0-31 and = * < > \ , | / are not allowed"));
    }
    Ok(())
}

fn word(what: &'static str, text: &str, longest: usize) -> Result<(), LimitError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=longest).contains(&text.len()) && text.bytes().all(legal) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(LimitError::new(what, format!("{shown:?}"), format!("1 to {longest} of A-Z a-z 0-9 _ - are allowed")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_are_words_of_bounded_length() {
        let longest = "x".repeat(64);
        for good in ["a", "queue-001", "A_b-9", &longest] {
            assert_eq!(queue_name(good), Ok(()));
        }
        let too_long = "x".repeat(65);
        for bad in ["", "a b", "队列", "a/b", &too_long] {
            assert!(queue_name(bad).is_err(), "{bad:?} passed");
        }
        assert!(group_name(&"x".repeat(33)).is_err());
    }

    #[test]
    fn an_error_names_the_thing_the_value_and_the_remedy() {
        let error = in_range("ack_wait", 10, &ACK_WAIT_SECS, " s").unwrap_err();
        assert_eq!(error.to_string(), "ack_wait is 10: 15 to 300 s are allowed");
    }

    #[test]
    fn a_fraction_of_a_second_counts() {
        for good in [15.0, 15.1, 299.9, 300.0] {
            assert_eq!(seconds("ack_wait", Duration::from_secs_f64(good), &ACK_WAIT_SECS), Ok(()), "{good}");
        }
        for bad in [0.0, 14.9, 300.000_1, 300.9] {
            assert!(seconds("ack_wait", Duration::from_secs_f64(bad), &ACK_WAIT_SECS).is_err(), "{bad}");
        }
        assert!(seconds("ack_wait", Duration::MAX, &ACK_WAIT_SECS).is_err());
        let error = seconds("ack_wait", Duration::from_millis(300_900), &ACK_WAIT_SECS).unwrap_err();
        assert_eq!(error.to_string(), "ack_wait is 300.9s: 15 to 300 s are allowed");
        let long = deduplication(Some("key"), Some(Duration::from_secs(900 * 86_400))).unwrap_err();
        assert_eq!(long.to_string(), "deduplication window is 900 d: 1 s to 7 days are allowed");
        let short = deduplication(Some("key"), Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(short.to_string(), "deduplication window is 5ms: 1 s to 7 days are allowed");
        assert_eq!([0, 1, 1_000, 1_001].map(|millis| whole_seconds(Duration::from_millis(millis))), [0, 1, 1, 2]);
    }

    #[test]
    fn tag_text_is_counted_in_characters() {
        assert_eq!(tag_key(&"键".repeat(36)), Ok(()));
        let long = tag_key(&"键".repeat(37)).unwrap_err();
        assert_eq!(long.of("tags[0].key"), "tags[0].key is 37 characters long: 1 to 36 characters are allowed.");
        assert!(tag_key("a=b").is_err());
        assert_eq!(tag_value(""), Ok(()));
        assert!(tag_value("a\nb").is_err());
    }
}
