//! What is sent: a [`Message`] with its body, attributes, labels and delay.
//!
//! A body stays the raw JSON text it arrived as, from socket to handler and from socket to disk.

use std::{borrow::Cow, fmt, str, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub use crate::attributes::Attributes;
use crate::{
    json::{Scan, push_string},
    trace_context::TraceContext,
};

/// A message body: exactly one JSON value, kept as its text. Only the body of a received message that cannot be read is something
/// else: see [`ReceivedMessage::undecodable`].
///
/// Cloning is cheap: clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    text: Bytes,
    /// Why the message that this is the text of cannot be read.
    fault: Option<Arc<str>>,
}

impl Body {
    /// Serialises `value` as JSON.
    ///
    /// # Errors
    /// When `value`'s `Serialize` fails or a map has keys that are not strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_vec(value).map(|text| Self::trusted(text.into()))
    }

    /// Takes JSON text as it is, blanks around it cut off.
    ///
    /// # Errors
    /// When the text is not exactly one JSON value.
    pub fn raw(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let value = match Scan::whole(&text, Scan::value) {
            Ok(value) => value,
            // The parser says what is wrong.
            Err(_) => serde_json::from_slice::<&RawValue>(&text)?.get().as_bytes(),
        };
        Ok(Self::trusted(text.slice_ref(value)))
    }

    /// Takes a slice that a JSON parser has already found to be one value.
    pub fn trusted(text: Bytes) -> Self {
        Self { text, fault: None }
    }

    /// The text of a message that cannot be read, whatever it is, and the reason.
    pub fn undecodable(text: Bytes, reason: &str) -> Self {
        Self { text, fault: Some(reason.into()) }
    }

    /// Why there is no body, but the text of a message that cannot be read.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The same text as a JSON string; what is not UTF-8 in it is replaced by U+FFFD.
    pub fn quoted(&self) -> Self {
        Self::string(&String::from_utf8_lossy(&self.text))
    }

    /// A JSON string.
    fn string(text: &str) -> Self {
        let mut json = Vec::with_capacity(text.len() + 2);
        push_string(&mut json, text);
        Self::trusted(json.into())
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// When the JSON is not of the shape of `T`, or the message cannot be read.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.fault {
            None => serde_json::from_slice(&self.text),
            Some(fault) => Err(serde::de::Error::custom(fault)),
        }
    }

    /// The JSON text. Of a message that cannot be read: its text up to where it is not UTF-8.
    pub fn as_str(&self) -> &str {
        // Only valid JSON gets in elsewhere, and JSON is UTF-8.
        let good = |error: str::Utf8Error| str::from_utf8(&self.text[..error.valid_up_to()]).unwrap_or_default();
        str::from_utf8(&self.text).unwrap_or_else(good)
    }

    /// The JSON text as shared bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    /// The size of the JSON text in bytes: what counts towards the limit of 524 288.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Never true of a body: the shortest JSON value has one byte.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies are the users' data and may be large: their size is enough for a log.
        write!(f, "Body({} bytes)", self.text.len())
    }
}

/// A message to send (API reference 5.3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The body.
    pub body: Body,
    /// The attributes; empty by default.
    pub attributes: Attributes,
    /// At most three labels, each 1-64 of `A-Z a-z 0-9 _ -`; none by default.
    pub tags: Vec<String>,
    /// How long the message stays invisible, 0 to 7 days, cut to milliseconds; zero by default.
    pub delay: Duration,
}

impl Message {
    /// A message with this body and nothing else.
    pub fn new(body: Body) -> Self {
        Self { body, attributes: Attributes::new(), tags: Vec::new(), delay: Duration::ZERO }
    }

    /// A message whose body is `value` as JSON.
    ///
    /// # Errors
    /// As [`Body::json`].
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Body::json(value).map(Self::new)
    }

    /// A message whose body is a JSON string.
    pub fn text(text: &str) -> Self {
        Self::new(Body::string(text))
    }

    /// Adds an attribute; an equal name is replaced.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.attributes.insert(name, value);
        self
    }

    /// Adds a label.
    pub fn tag(mut self, label: impl Into<String>) -> Self {
        self.tags.push(label.into());
        self
    }

    /// Says in which trace the message was made, unless an attribute says so already.
    pub fn trace_context(mut self, context: &TraceContext) -> Self {
        context.put(&mut self.attributes);
        self
    }

    /// Sets how long the message stays invisible (NORMAL and FIFO queues; at most 7 days).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A message as a consume call hands it out, with the token that acknowledges it (API reference 5.3.2).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The body.
    pub body: Body,
    /// The attributes.
    pub attributes: Attributes,
    /// The labels; dead letters carry none.
    pub tags: Vec<String>,
    /// What acknowledges this delivery.
    pub handle: AckHandle,
    /// Its place in its queue (or among the group's dead letters), the same each time it is delivered. This project's server sends
    /// it in a header; other services do not.
    pub sequence: Option<u64>,
    /// Which delivery to the group this is, failed consumptions counted: 1 for the first. As `sequence`, sent by this project's
    /// server alone.
    pub attempt: Option<u32>,
    /// When it entered its queue (its delay over) or the group's dead letters, in milliseconds since the Unix epoch. As
    /// `sequence`, sent by this project's server alone; with it, it tells a message from any other.
    pub entered_ms: Option<i64>,
    /// Why and when a dead letter died. This project's server tells it of the dead letters that are consumed from it; of messages,
    /// and by other services, nothing is told.
    pub dead_letter: Option<DeadLetterInfo>,
}

impl ReceivedMessage {
    /// Why this message cannot be read, where it cannot: its text is no JSON, its attributes are no object or hold what parsers refuse
    /// (half a surrogate pair, a number beyond an IEEE double), its body is missing. It has no attributes and labels then, and its
    /// `body` is the text of the whole message as it came, which [`parse`](Body::parse) refuses. It can be acknowledged, and cannot
    /// be sent.
    pub fn undecodable(&self) -> Option<&str> {
        self.body.fault()
    }

    /// What every service tells of a message.
    pub fn new(body: Body, attributes: Attributes, tags: Vec<String>, handle: impl Into<Box<str>>) -> Self {
        let handle = AckHandle::new(handle);
        Self { body, attributes, tags, handle, sequence: None, attempt: None, entered_ms: None, dead_letter: None }
    }
}

/// The opaque token that acknowledges one delivery of a message. The wire calls it `handler`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AckHandle(Box<str>);

impl AckHandle {
    /// Wraps a token as the service gave it.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AckHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AckHandle({}…)", self.0.get(..8).unwrap_or(&self.0))
    }
}

/// What an acknowledgement says of a message (API reference 5.3.3; [`Release`](Self::Release) and [`Reject`](Self::Reject) are
/// extensions of this project's server).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AckStatus {
    /// It is done: the group does not get it again.
    Success,
    /// It failed: the group gets it again, or it becomes a dead letter.
    Fail,
    /// It is handed back, and so are those behind it: they are available again at once, and no failure is counted for them. To a
    /// service without the extension [`Fail`](Self::Fail) is sent instead.
    Release,
    /// It becomes a dead letter at once, and the batch goes on behind it as behind a success. To a service without the extension
    /// [`Fail`](Self::Fail) is sent instead.
    Reject,
}

impl AckStatus {
    /// The wire's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Fail => "fail",
            Self::Release => "release",
            Self::Reject => "reject",
        }
    }
}

/// Why a message failed or was rejected. This project's server keeps it with the dead letter; other services are not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureReport {
    /// One word, 1-64 of `a-z 0-9 _ -`; a worker says `failed`, `panicked`, `timed_out`, `rejected`, `undecodable` or
    /// `republish_exhausted`.
    pub reason: Cow<'static, str>,
    /// The error's text; cut at 1,024 bytes.
    pub error: String,
    /// Who consumed the message; cut at 128 bytes.
    pub worker: String,
    /// When the message failed first, in milliseconds since the Unix epoch, where that is known.
    pub first_failure_ms: Option<i64>,
    /// When it failed last, in milliseconds since the Unix epoch.
    pub last_failure_ms: Option<i64>,
}

/// Why and when a message became a dead letter, as this project's server keeps it. Other services do not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetterInfo {
    /// One word: what its consumer said (see [`FailureReport::reason`]), `lease_expired` where a lease ended and nobody said
    /// anything, `batch_failed` where a message in front of it failed and `failure_counting` is `batch`.
    pub reason: String,
    /// The text of the last error that a consumer reported; at most 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who reported it; at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Failed consumptions, the last one included.
    pub attempts: u32,
    /// When the message failed first, in milliseconds since the Unix epoch. `None` when the server was restarted since.
    #[serde(rename = "first_failure", default, skip_serializing_if = "Option::is_none")]
    pub first_failure_ms: Option<i64>,
    /// When it failed last, in milliseconds since the Unix epoch.
    #[serde(rename = "last_failure", default, skip_serializing_if = "Option::is_none")]
    pub last_failure_ms: Option<i64>,
}

impl DeadLetterInfo {
    /// A reason, and nothing else that is known.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }
}

/// The reason, the error, the worker and the number of attempts, as in `failed: no such account (worker billing-1, attempt 3)`.
impl fmt::Display for DeadLetterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if let Some(error) = &self.error {
            write!(f, ": {error}")?;
        }
        match &self.worker {
            Some(worker) => write!(f, " (worker {worker}, attempt {})", self.attempts),
            None => write!(f, " (attempt {})", self.attempts),
        }
    }
}

/// One line of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckLine<'a> {
    /// The delivery that it is about.
    pub handle: &'a AckHandle,
    /// What is said of it.
    pub status: AckStatus,
    /// Why, with [`Fail`](AckStatus::Fail) and [`Reject`](AckStatus::Reject).
    pub failure: Option<&'a FailureReport>,
}

impl<'a> AckLine<'a> {
    /// A line that says no more than its status.
    pub fn new(handle: &'a AckHandle, status: AckStatus) -> Self {
        Self { handle, status, failure: None }
    }

    /// Adds why the message failed or was rejected.
    pub fn because(self, failure: &'a FailureReport) -> Self {
        Self { failure: Some(failure), ..self }
    }
}

/// The identifier the service gives a sent message, on request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// Wraps an identifier as the service gave it.
    pub fn new(id: impl Into<Box<str>>) -> Self {
        Self(id.into())
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
