//! [`Message`]: a body with attributes, labels and a delay.
//!
//! A body stays the JSON text in which it arrived, from the socket to the handler or the disk.

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    str,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub use crate::attributes::Attributes;
use crate::{
    internal::json::{Scan, push_string},
    trace_context::TraceContext,
};

/// A message body: exactly one JSON value, kept as text. The exception is the body of an unreadable received message;
/// see [`ReceivedMessage::undecodable`].
///
/// Cloning is cheap, because clones share the bytes. `Debug` shows the size only.
///
/// # Examples
/// ```
/// use dms_protocol::message::Body;
///
/// let body = Body::json(&("order", 7))?;
/// assert_eq!((body.as_str(), body.len()), (r#"["order",7]"#, 11));
/// let (kind, number): (String, u32) = body.parse()?;
/// assert_eq!((kind.as_str(), number), ("order", 7));
/// assert!(Body::raw("not JSON").is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    text: Bytes,
    /// Why the message with this text is unreadable.
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

    /// Uses JSON text unchanged, without the blanks around it.
    ///
    /// # Errors
    /// When the text is not exactly one JSON value.
    pub fn raw(text: impl Into<Bytes>) -> Result<Self, serde_json::Error> {
        let text = text.into();
        let value = match Scan::whole(&text, Scan::value) {
            Ok(value) => value,
            // The parser's error is returned.
            Err(_) => serde_json::from_slice::<&RawValue>(&text)?.get().as_bytes(),
        };
        Ok(Self::trusted(text.slice_ref(value)))
    }

    /// Uses a slice that was checked to be one JSON value. Nothing is checked again, and any other text makes the request that
    /// contains it invalid.
    #[inline]
    pub fn trusted(text: Bytes) -> Self {
        Self { text, fault: None }
    }

    /// The text of an unreadable message, with the reason.
    pub fn undecodable(text: Bytes, reason: &str) -> Self {
        Self { text, fault: Some(reason.into()) }
    }

    /// The reason why this is the text of an unreadable message, if it is.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The text as a JSON string. Bytes that are not UTF-8 become U+FFFD.
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
    /// When the JSON does not have the shape of `T`, or the message is unreadable.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match &self.fault {
            None => serde_json::from_slice(&self.text),
            Some(fault) => Err(serde::de::Error::custom(fault)),
        }
    }

    /// The JSON text. For an unreadable message it is the text up to the first byte that is not UTF-8.
    pub fn as_str(&self) -> &str {
        // All other bodies are valid JSON, and JSON is UTF-8.
        let good = |error: str::Utf8Error| str::from_utf8(&self.text[..error.valid_up_to()]).unwrap_or_default();
        str::from_utf8(&self.text).unwrap_or_else(good)
    }

    /// The JSON text as shared bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.text
    }

    /// The size of the JSON text in bytes, which counts towards the limit of 524 288.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Returns whether the text is empty, which no valid body is.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Logs show the size only, because bodies are the users' data and may be large.
        write!(f, "Body({} bytes)", self.text.len())
    }
}

/// A message to send (API reference 5.3.1). One request takes at most 10 messages with bodies of at most 524,288 bytes together.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use dms_protocol::message::Message;
///
/// let message = Message::text("hello").attribute("shop", "north").tag("urgent").delay(Duration::from_secs(60));
/// assert_eq!(message.body.as_str(), r#""hello""#);
/// assert_eq!(message.attributes.get_str("shop").as_deref(), Some("north"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The body.
    pub body: Body,
    /// The attributes; empty by default.
    pub attributes: Attributes,
    /// At most three labels, each 1-64 of `A-Z a-z 0-9 _ -`; none by default.
    pub tags: Vec<String>,
    /// The delay until the message is available, 0 to 7 days in milliseconds (366 days for this project's server); zero by
    /// default.
    pub delay: Duration,
    /// The deduplication key, 1 to 512 bytes; none by default. See [`deduplication_key`](Self::deduplication_key).
    pub deduplication_key: Option<String>,
    /// How long the key counts, 1 s to 7 days; 5 min by default.
    pub deduplication_window: Option<Duration>,
}

impl Message {
    /// A message with a body only.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            attributes: Attributes::new(),
            tags: Vec::new(),
            delay: Duration::ZERO,
            deduplication_key: None,
            deduplication_window: None,
        }
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

    /// Adds an attribute. It replaces one of the same name.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.attributes.insert(name, value);
        self
    }

    /// Adds a label, 1-64 of `A-Z a-z 0-9 _ -`. A message may have three; a send checks this. Kafka queues accept none.
    pub fn tag(mut self, label: impl Into<String>) -> Self {
        self.tags.push(label.into());
        self
    }

    /// Adds a trace context, unless the attributes have one.
    pub fn trace_context(mut self, context: &TraceContext) -> Self {
        context.put(&mut self.attributes);
        self
    }

    /// Sets the deduplication key, 1 to 512 bytes; none by default.
    ///
    /// The server stores one message with a key: further messages with the same key for the same queue are answered with
    /// success and the id of the stored one, until its [window](Self::deduplication_window) has ended. The key is an
    /// extension of this project's server; a send to another service fails before anything is sent.
    pub fn deduplication_key(mut self, key: impl Into<String>) -> Self {
        self.deduplication_key = Some(key.into());
        self
    }

    /// Sets how long the deduplication key counts, 1 s to 7 days in milliseconds; 5 min by default. The window begins
    /// when the message is stored. The windows of later messages with the same key do not matter.
    pub fn deduplication_window(mut self, window: Duration) -> Self {
        self.deduplication_window = Some(window);
        self
    }

    /// Sets the delay until the message can be consumed; zero by default, at most 7 days, in whole milliseconds. Only NORMAL and FIFO
    /// queues accept delays. This project's server accepts 366 days; a send of more than 7 days to another service fails before
    /// anything is sent.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A received message, with the token for its acknowledgement (API reference 5.3.2).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReceivedMessage {
    /// The body.
    pub body: Body,
    /// The attributes.
    pub attributes: Attributes,
    /// The labels. Dead letters have none.
    pub tags: Vec<String>,
    /// The token that acknowledges this delivery. It is valid until the lease ends (`ack_wait`).
    pub handle: AckHandle,
    /// The position of the message in its queue or among the group's dead letters. It is the same at each delivery.
    /// Only this project's server sends it.
    pub sequence: Option<u64>,
    /// The number of this delivery to the group, from 1, by the count of failed consumptions. Only this project's
    /// server sends it.
    pub attempt: Option<u32>,
    /// When the message entered its queue, after its delay, or the group's dead letters, in milliseconds since the Unix
    /// epoch. Together with `sequence` it identifies the message. Only this project's server sends it.
    pub entered_ms: Option<i64>,
    /// Why and when the message became a dead letter. `None` for other messages, and from other services.
    pub dead_letter: Option<DeadLetterInfo>,
    /// The id of the message. Only this project's server sends it.
    pub id: Option<MessageId>,
}

impl ReceivedMessage {
    /// Why this message is unreadable: its text is not JSON, its body is missing, or its attributes are not an object
    /// or have values that parsers refuse (half a surrogate pair, a number beyond an IEEE double). It then has no
    /// attributes and labels, and its `body` is the received text of the whole message, which [`parse`](Body::parse)
    /// refuses. It can be acknowledged but not sent.
    pub fn undecodable(&self) -> Option<&str> {
        self.body.fault()
    }

    /// The id that a send returned for this message, or for the message that it is a copy of. It never changes, so it can be used to
    /// recognise a message. `None` from services that do not send it, unless the attribute [`MESSAGE_ID`] has one.
    pub fn message_id(&self) -> Option<MessageId> {
        MessageId::of(&self.attributes, self.id.as_ref())
    }

    /// A message with the parts that every service sends.
    pub fn new(body: Body, attributes: Attributes, tags: Vec<String>, handle: impl Into<Box<str>>) -> Self {
        let handle = AckHandle::new(handle);
        Self {
            body,
            attributes,
            tags,
            handle,
            sequence: None,
            attempt: None,
            entered_ms: None,
            dead_letter: None,
            id: None,
        }
    }
}

/// The opaque token that acknowledges one delivery of a message. The API calls it `handler`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AckHandle(Box<str>);

impl AckHandle {
    /// Wraps a token of the service.
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

/// The status of a message in an acknowledgement (API reference 5.3.3). [`Release`](Self::Release) and
/// [`Reject`](Self::Reject) are extensions of this project's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AckStatus {
    /// The message is done.
    Success,
    /// The message failed. It is redelivered or becomes a dead letter.
    Fail,
    /// The message and those after it are handed back. They are available at once, without a counted failure. A service
    /// without this extension receives [`Fail`](Self::Fail).
    Release,
    /// The message becomes a dead letter at once, and the messages after it can still succeed. A service without this
    /// extension receives [`Fail`](Self::Fail).
    Reject,
}

impl AckStatus {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Fail => "fail",
            Self::Release => "release",
            Self::Reject => "reject",
        }
    }
}

/// Why a message failed or was rejected. It is sent to this project's server only, which stores it with the dead
/// letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureReport {
    /// One word, 1-64 of `a-z 0-9 _ -`. A worker sends `failed`, `panicked`, `timed_out`, `rejected`, `undecodable` or
    /// `republish_exhausted`.
    pub reason: Cow<'static, str>,
    /// The error's text; cut at 1,024 bytes.
    pub error: String,
    /// The name of the consumer; cut at 128 bytes.
    pub worker: String,
    /// When the message failed first, in milliseconds since the Unix epoch, if known.
    pub first_failure_ms: Option<i64>,
    /// When it failed last, in milliseconds since the Unix epoch.
    pub last_failure_ms: Option<i64>,
}

/// Why and when a message became a dead letter. Only this project's server sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetterInfo {
    /// One word: the consumer's reason (see [`FailureReport::reason`]), `lease_expired` if the lease ended without an
    /// acknowledgement, or `batch_failed` if an earlier message of the batch failed and `failure_counting` is `batch`.
    pub reason: String,
    /// The last error that a consumer reported; at most 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The worker that reported it; at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Failed consumptions, the last one included.
    pub attempts: u32,
    /// When the message failed first, in milliseconds since the Unix epoch. `None` if the server was restarted since
    /// then.
    #[serde(rename = "first_failure", default, skip_serializing_if = "Option::is_none")]
    pub first_failure_ms: Option<i64>,
    /// When it failed last, in milliseconds since the Unix epoch.
    #[serde(rename = "last_failure", default, skip_serializing_if = "Option::is_none")]
    pub last_failure_ms: Option<i64>,
}

impl DeadLetterInfo {
    /// Information with a reason only.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// Whether this dead letter is the original of a copy that was edited and sent again. It is kept beside the copy, and redrives
    /// leave it where it is, because its message was sent again already.
    pub fn is_edited_original(&self) -> bool {
        self.reason == "edited"
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

/// One line of an acknowledgement: the status of one delivery. A request has at most 10 lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckLine<'a> {
    /// The token of the delivery.
    pub handle: &'a AckHandle,
    /// The status.
    pub status: AckStatus,
    /// The reason, for [`Fail`](AckStatus::Fail) and [`Reject`](AckStatus::Reject).
    pub failure: Option<&'a FailureReport>,
}

impl<'a> AckLine<'a> {
    /// A line with a status only.
    pub fn new(handle: &'a AckHandle, status: AckStatus) -> Self {
        Self { handle, status, failure: None }
    }

    /// Adds the reason of a failed or rejected message.
    pub fn failure(self, failure: &'a FailureReport) -> Self {
        Self { failure: Some(failure), ..self }
    }
}

/// The attribute with the id of the message that a copy was made from. A copy keeps this id.
pub const MESSAGE_ID: &str = "dms-message-id";

/// The attribute with the name of the schedule that sent a message.
pub const SCHEDULE: &str = "dms-schedule";

/// The attribute with the time for which a schedule planned a message (RFC 3339, UTC).
pub const SCHEDULED_TIME: &str = "dms-scheduled-time";

/// The opaque id of a message. A send returns it on request, and a consumer sees it at each delivery.
///
/// Ids of this project's server have 24 characters of `A-Z a-z 0-9 _ -`. They do not change when a delay ends, the message is
/// redelivered or becomes a dead letter, and copies keep them in the attribute [`MESSAGE_ID`].
#[derive(Clone)]
pub struct MessageId(Id);

/// The text of an id. Ids of this project's server need no allocation.
#[derive(Clone)]
enum Id {
    Short(u8, [u8; MAX_SHORT]),
    Long(Arc<str>),
}

/// The size up to which an id is kept without an allocation, in bytes.
const MAX_SHORT: usize = 30;

impl MessageId {
    /// Wraps an id of the service.
    pub fn new(id: impl AsRef<str>) -> Self {
        let id = id.as_ref();
        let mut short = [0; MAX_SHORT];
        match (short.get_mut(..id.len()), u8::try_from(id.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(id.as_bytes());
                Self(Id::Short(length, short))
            }
            _ => Self(Id::Long(id.into())),
        }
    }

    /// The id of a message with these attributes, to which its service gave the id `own`. If the service tells none, the id is that
    /// of the attribute [`MESSAGE_ID`]. Otherwise the attribute counts for nothing: any sender can set it, and a server that accepts
    /// it from the sender of a copy tells it as the id.
    pub fn of(attributes: &Attributes, own: Option<&Self>) -> Option<Self> {
        let named = || if attributes.is_empty() { None } else { attributes.get_str(MESSAGE_ID) };
        own.cloned().or_else(|| named().filter(|id| !id.is_empty()).map(Self::new))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // It was copied from a text of this length.
            Id::Short(length, short) => str::from_utf8(&short[..usize::from(*length)]).unwrap_or_default(),
            Id::Long(id) => id,
        }
    }
}

impl PartialEq for MessageId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for MessageId {}

impl Hash for MessageId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn ids_of_any_length_stay_as_they_are() {
        for id in ["", "m_RjkDiiQaIPJBFSAAAAAAAR", "thirty bytes are kept in place", "队列", &"long ".repeat(40)] {
            let kept = MessageId::new(id);
            assert_eq!((kept.as_str(), kept.to_string().as_str(), &kept), (id, id, &MessageId::new(id)));
        }
        assert_ne!(MessageId::new("a"), MessageId::new("a\0"));
    }

    #[test]
    fn a_copy_has_the_id_of_its_original() {
        let body = || Body::json(&1).unwrap_or_else(|_| unreachable!());
        let message = |attributes| ReceivedMessage::new(body(), attributes, Vec::new(), "h");
        let mut copy = message(Attributes::new());
        assert_eq!(copy.message_id(), None);
        for strange in [Value::from(7), Value::from("")] {
            copy.attributes.insert(MESSAGE_ID, strange);
            assert_eq!(copy.message_id(), None);
        }
        copy.attributes.insert(MESSAGE_ID, "first");
        assert_eq!(copy.message_id(), Some(MessageId::new("first")));
        copy.id = Some(MessageId::new("own"));
        assert_eq!(copy.message_id(), Some(MessageId::new("own")), "what the service says counts");
    }
}
