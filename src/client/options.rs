//! [`SendOptions`] and [`ConsumeOptions`]: what a caller may choose when it sends and consumes.

use std::time::Duration;

use crate::{
    auth::encode,
    limits::{self, LimitError, MAX_MESSAGES, whole_seconds},
    queue::{TagFilter, TagMode},
    wire::Dialect,
};

/// Options of [`Client::send_with`](super::Client::send_with) and of a producer.
///
/// ```
/// use dms_worker::SendOptions;
///
/// let options = SendOptions::new().return_ids(true);
/// assert!(options.return_ids && !options.allow_duplicates);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    /// Whether the service returns the id of each message; off by default.
    pub return_ids: bool,
    /// Whether a send is repeated if it may have been stored already, so that its messages may be stored twice. Off by
    /// default: such a send fails with [`is_unsure`](super::Error::is_unsure).
    pub allow_duplicates: bool,
}

impl SendOptions {
    /// The defaults: no ids, and no send that could store a message twice.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the service returns the id of each message; off by default.
    pub fn return_ids(mut self, on: bool) -> Self {
        self.return_ids = on;
        self
    }

    /// Whether a send is repeated if it may have been stored already; off by default.
    pub fn allow_duplicates(mut self, on: bool) -> Self {
        self.allow_duplicates = on;
        self
    }
}

/// Options of [`Client::consume`](super::Client::consume).
///
/// ```
/// use std::time::Duration;
/// use dms_worker::ConsumeOptions;
///
/// let options = ConsumeOptions::new().max_messages(5).poll_wait(Duration::from_secs(20));
/// assert!(options.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsumeOptions {
    /// The most messages to return, 1-10; 10 by default.
    pub max_messages: usize,
    /// How long the service waits for a first message, 1-60 s; 3 s by default. Rounded up to seconds.
    pub poll_wait: Duration,
    /// How long the batch stays leased without an acknowledgement, 15-300 s; 30 s by default. Rounded up to seconds.
    pub ack_wait: Duration,
    /// The labels that a message must carry; none by default. A group keeps the filter of its first call for life.
    pub filter: TagFilter,
}

impl Default for ConsumeOptions {
    fn default() -> Self {
        Self {
            max_messages: MAX_MESSAGES,
            poll_wait: Duration::from_secs(3),
            ack_wait: Duration::from_secs(30),
            filter: TagFilter::default(),
        }
    }
}

impl ConsumeOptions {
    /// The defaults: 10 messages, a poll wait of 3 s, an acknowledgement wait of 30 s, every label.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most messages to return, 1-10; 10 by default.
    pub fn max_messages(mut self, messages: usize) -> Self {
        self.max_messages = messages;
        self
    }

    /// How long the service waits for a first message, 1-60 s; 3 s by default. Rounded up to seconds.
    pub fn poll_wait(mut self, wait: Duration) -> Self {
        self.poll_wait = wait;
        self
    }

    /// How long the batch stays leased without an acknowledgement, 15-300 s; 30 s by default. Rounded up to seconds.
    pub fn ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait;
        self
    }

    /// The labels that a message must carry; none by default. A group keeps the filter of its first call for life.
    pub fn filter(mut self, filter: TagFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Checks the options against the service's limits.
    ///
    /// # Errors
    /// When an option is outside its limits; the error names it.
    pub fn check(&self) -> Result<(), LimitError> {
        self.check_for(Dialect::Dms)
    }

    /// The same for the API of this dialect.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_for(&self, dialect: Dialect) -> Result<(), LimitError> {
        limits::in_range("max_messages", self.max_messages, &(1..=MAX_MESSAGES), "")?;
        limits::in_range("poll_wait", whole_seconds(self.poll_wait), &dialect.poll_wait_secs(), " s")?;
        limits::in_range("ack_wait", whole_seconds(self.ack_wait), &dialect.ack_wait_secs(), " s")?;
        if dialect == Dialect::Mqs && !self.filter.is_empty() {
            let allowed = "ROMA Connect MQS has no labels to filter by; filter in the handler".to_owned();
            return Err(LimitError { what: "labels", value: self.filter.tags.join(", "), allowed });
        }
        limits::labels(&self.filter.tags)
    }

    pub(super) fn query(&self) -> String {
        let (max, poll, ack) = (self.max_messages, whole_seconds(self.poll_wait), whole_seconds(self.ack_wait));
        let mut query = format!("max_msgs={max}&time_wait={poll}&ack_wait={ack}");
        for tag in &self.filter.tags {
            query.push_str("&tag=");
            encode(&mut query, tag.as_bytes());
        }
        match self.filter.mode {
            _ if self.filter.is_empty() => {}
            TagMode::Or => query.push_str("&tag_type=or"),
            TagMode::And => query.push_str("&tag_type=and"),
        }
        query
    }
}
