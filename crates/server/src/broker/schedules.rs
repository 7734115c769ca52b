//! Schedules: messages that the server sends at the times of a cron expression.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    broker::{
        BrokerError,
        timetable::{ScheduleError, Timetable, excerpt},
    },
    store::{LastTick, MissedTicks, ScheduleSource},
};
use dms_protocol::{
    internal::json::Scan,
    limits::{self, MAX_SCHEDULED_BYTES},
    message::{Attributes, SCHEDULE, SCHEDULED_TIME},
    queue::{ProjectId, QueueId},
};

/// A schedule is late if its next tick was to be sent longer ago than this.
pub(crate) const LATE_MS: i64 = 60_000;

/// The message of a schedule, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledMessage {
    body: Arc<str>,
    attributes: Arc<str>,
    tags: Arc<[String]>,
}

impl ScheduledMessage {
    /// Reads a message: an object with `body`, and if wanted `attributes` and `tags`. Any other JSON is the body itself.
    ///
    /// # Errors
    /// When the text is not JSON, a member is wrong or unknown, or the message breaks a limit.
    pub fn parse(json: &str) -> Result<Self, ScheduleError> {
        let message = |text: String| ScheduleError::new("message", text);
        if !json.trim_start().starts_with('{') || !has_body(json) {
            return Self::new(json.trim(), &Attributes::new(), Vec::new());
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields<'a> {
            #[serde(borrow)]
            body: &'a RawValue,
            #[serde(default)]
            attributes: Option<Attributes>,
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let Fields { body, attributes, tags } = serde_json::from_str(json).map_err(|error| {
            let hint = "beside `body` it may have `attributes` and `tags`; anything else belongs into `body`";
            message(format!("cannot be read: {error}: {hint}"))
        })?;
        Self::new(body.get(), &attributes.unwrap_or_default(), tags.unwrap_or_default())
    }

    /// A message with a body of this JSON.
    ///
    /// # Errors
    /// When the body is not JSON, or the message breaks a limit.
    pub fn new(body: &str, attributes: &Attributes, tags: Vec<String>) -> Result<Self, ScheduleError> {
        let error = |text: String| ScheduleError::new("message", text);
        let read = Scan::whole(body.as_bytes(), |scan| scan.portable(limits::MAX_NESTING, 0).map(drop));
        read.map_err(|fault| {
            error(format!("is {}, which is no JSON that a message may have: {fault}", excerpt(body)))
        })?;
        limits::labels(&tags).map_err(|broken| error(format!("has wrong tags: {broken}")))?;
        if let Some(own) = [SCHEDULE, SCHEDULED_TIME].into_iter().find(|name| attributes.contains(name)) {
            return Err(error(format!("has the attribute {own}, which the server sets: leave it out")));
        }
        let attributes = attributes.to_json();
        Scan::whole(attributes.as_bytes(), |scan| scan.portable(limits::MAX_NESTING, 1).map(drop))
            .map_err(|fault| error(format!("has wrong attributes: {fault}")))?;
        let bytes = body.len() + attributes.len();
        if bytes > MAX_SCHEDULED_BYTES {
            return Err(error(format!("has {bytes} bytes: at most {MAX_SCHEDULED_BYTES} are allowed in a schedule")));
        }
        Ok(Self { body: body.into(), attributes: attributes.into(), tags: tags.into() })
    }

    /// The body, as JSON text.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The attributes, as the text of a JSON object.
    pub fn attributes(&self) -> &str {
        &self.attributes
    }

    /// The labels.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    pub(crate) fn from_parts(body: Arc<str>, attributes: Arc<str>, tags: Arc<[String]>) -> Self {
        Self { body, attributes, tags }
    }

    pub(crate) fn into_parts(self) -> (Arc<str>, Arc<str>, Arc<[String]>) {
        (self.body, self.attributes, self.tags)
    }
}

/// Whether an object has the member `body`. A text that is no JSON has none.
fn has_body(json: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok_and(|map| map.contains_key("body"))
}

/// A schedule to be added.
///
/// # Examples
/// ```
/// use dms_server::{
///     Project,
///     broker::{NewSchedule, ScheduledMessage},
/// };
///
/// let message = ScheduledMessage::parse(r#"{"body": "close the books", "attributes": {"kind": "daily"}}"#)?;
/// let nightly = NewSchedule::new("close-books", "0 2 * * *", message).timezone("Europe/Berlin");
/// nightly.check()?;
/// let project = Project::new("shop").schedule("reports", nightly);
/// assert_eq!(project.schedules[0].queue, "reports");
/// # Ok::<(), dms_server::broker::ScheduleError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NewSchedule {
    /// The name: 1 to 64 of `A-Z a-z 0-9 _ -`, unique in the project.
    pub name: String,
    /// When it sends: see [`Timetable`].
    pub cron: String,
    /// The time zone in which `cron` is read, a name of the IANA database. Default: `UTC`.
    pub timezone: String,
    /// The message that it sends.
    pub message: ScheduledMessage,
    /// What happens to missed ticks. Default: [`MissedTicks::Once`].
    pub missed: MissedTicks,
}

impl NewSchedule {
    /// A schedule in UTC.
    pub fn new(name: impl Into<String>, cron: impl Into<String>, message: ScheduledMessage) -> Self {
        let (name, cron, timezone) = (name.into(), cron.into(), "UTC".to_owned());
        Self { name, cron, timezone, message, missed: MissedTicks::default() }
    }

    /// Sets the time zone; `UTC` by default.
    pub fn timezone(mut self, timezone: impl Into<String>) -> Self {
        self.timezone = timezone.into();
        self
    }

    /// Sets what happens to missed ticks; the last of them sends its message by default.
    pub fn missed(mut self, missed: MissedTicks) -> Self {
        self.missed = missed;
        self
    }

    /// Checks the schedule, and returns its planned times.
    ///
    /// # Errors
    /// [`ScheduleError`] about the first mistake.
    pub fn check(&self) -> Result<Timetable, ScheduleError> {
        limits::schedule_name(&self.name)
            .map_err(|error| ScheduleError::new("name", format!("is {}: {}", error.value, error.allowed)))?;
        Timetable::new(&self.cron, &self.timezone)
    }
}

/// A schedule as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScheduleOverview {
    /// The project.
    pub project: ProjectId,
    /// The queue to which it sends.
    pub queue: QueueId,
    /// The name of that queue.
    pub queue_name: String,
    /// The message and the times.
    pub schedule: NewSchedule,
    /// Where it comes from.
    pub source: ScheduleSource,
    /// Whether its ticks send nothing for now.
    pub is_paused: bool,
    /// When it was added, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// When it sends next, in milliseconds since the Unix epoch; at most three times. Empty if it is paused, or its time zone is
    /// unknown to this version.
    pub next_ms: Vec<i64>,
    /// The last tick that sent its message.
    pub last: Option<LastTick>,
    /// The number of ticks that sent their message.
    pub sent: u64,
    /// The number of missed ticks that sent nothing.
    pub missed: u64,
    /// Whether the first of `next_ms` is more than a minute ago, because the store could not take its message.
    #[serde(default)]
    pub is_late: bool,
}

impl From<ScheduleError> for BrokerError {
    fn from(error: ScheduleError) -> Self {
        Self::NotAvailable(error.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(json: &str) -> (String, String, Vec<String>) {
        let message = ScheduledMessage::parse(json).unwrap();
        (message.body().to_owned(), message.attributes().to_owned(), message.tags().to_vec())
    }

    #[test]
    fn an_object_with_a_body_is_a_message_and_all_else_is_the_body() {
        let plain = |body: &str| (body.to_owned(), "{}".to_owned(), Vec::new());
        assert_eq!(parsed(r#" "text" "#), plain(r#""text""#));
        assert_eq!(parsed(r#"{"report": 1.10}"#), plain(r#"{"report": 1.10}"#));
        assert_eq!(parsed(r#"{"body": {"body": 1}}"#), plain(r#"{"body": 1}"#));
        assert_eq!(parsed("null"), plain("null"));
        let full = parsed(r#"{"body":1e3,"attributes":{"a":1.10},"tags":["red"]}"#);
        assert_eq!(full, ("1e3".to_owned(), r#"{"a":1.10}"#.to_owned(), vec!["red".to_owned()]));
    }

    #[test]
    fn a_wrong_message_is_refused_with_the_reason() {
        let large = format!("\"{}\"", "x".repeat(MAX_SCHEDULED_BYTES));
        for (json, text) in [
            ("nightly", "message is \"nightly\", which is no JSON"),
            ("{\"body\":1", "which is no JSON"),
            (r#"{"body":1,"bodies":2}"#, "unknown field `bodies`"),
            (r#"{"body":1,"attributes":[]}"#, "cannot be read"),
            (r#"{"body":1,"tags":["a b"]}"#, "has wrong tags"),
            (r#"{"body":1,"attributes":{"dms-schedule":"x"}}"#, "has the attribute dms-schedule"),
            (r#""\ud800""#, "which is no JSON that a message may have"),
            (large.as_str(), "at most 65536 are allowed in a schedule"),
        ] {
            let error = ScheduledMessage::parse(json).unwrap_err();
            assert_eq!(error.property(), "message");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_schedule_is_checked() {
        let message = ScheduledMessage::parse("1").unwrap();
        let schedule = |name: &str, cron: &str| NewSchedule::new(name, cron, message.clone());
        schedule("nightly", "0 2 * * *").timezone("Asia/Shanghai").check().unwrap();
        let property = |schedule: NewSchedule| schedule.check().unwrap_err().property();
        assert_eq!(property(schedule("two words", "0 2 * * *")), "name");
        assert_eq!(property(schedule("nightly", "0 2 * *")), "cron");
        assert_eq!(property(schedule("nightly", "0 2 * * *").timezone("Mars")), "timezone");
    }
}
