//! The calls to ROMA Connect MQS: topics and groups are named and not looked up.

use http::{Method, StatusCode};

use super::{
    Client,
    call::Call,
    code::Class,
    error::{Error, ErrorKind, Refusal},
    options::SendOptions,
    sent::{SendOutcome, SentMessage},
    tries::Repeat,
};
use crate::{
    limits::{self, LimitError, MAX_BYTES, MAX_MQS_BYTES},
    message::Message,
    queue::{ConsumerGroup, GroupId, Queue, QueueId, QueueMode},
    wire::{self, Dialect},
};

/// The longest topic name, in characters. The documents of MQS give no limit; this is Kafka's.
const MAX_TOPIC: usize = 249;

impl Client {
    /// The API that the client speaks.
    pub fn dialect(&self) -> Dialect {
        self.inner.wording.dialect
    }

    /// The most bytes of bodies in one request.
    pub(crate) fn most_bytes(&self) -> usize {
        if self.speaks_mqs() { MAX_MQS_BYTES } else { MAX_BYTES }
    }

    pub(super) fn speaks_mqs(&self) -> bool {
        self.dialect() == Dialect::Mqs
    }

    /// Sends messages to a topic.
    pub(super) async fn produce(
        &self,
        topic: &QueueId,
        messages: &[Message],
        options: SendOptions,
    ) -> Result<Vec<SendOutcome>, Error> {
        const NAME: &str = "send";
        if options.return_ids {
            let text = "ROMA Connect MQS returns no ids of messages: switch off return_ids";
            return Err(Error::new(NAME, ErrorKind::Setup(text.to_owned())));
        }
        let path = ["topic", topic.as_str(), "messages"];
        let repeat = if options.allow_duplicates { Repeat::Allowed } else { Repeat::Doubles };
        let call = Call::new(NAME, Method::POST, &path, repeat)
            .body(Ok(wire::mqs::encode_produce(messages, self.inner.content.send)))?;
        let stored = self.fetch(call, |answer| Ok(wire::mqs::decode_produced(answer, messages.len())?)).await?;
        Ok(stored
            .into_iter()
            .map(|stored| if stored { Ok(SentMessage::default()) } else { Err(not_stored(NAME)) })
            .collect())
    }

    /// The topic of this name. MQS lists no topics, so it may not exist.
    pub(super) fn topic(&self, name: &str) -> Result<Queue, Error> {
        check_topic(name).map_err(|error| Error::limit("find queue", error))?;
        let mut topic = Queue::new(QueueId::new(name), name, QueueMode::Normal);
        topic.dead_letters = Some(false);
        Ok(topic)
    }

    /// The group of this name. It exists once it has consumed.
    pub(super) fn topic_group(&self, name: &str) -> Result<ConsumerGroup, Error> {
        limits::mqs_group_name(name).map_err(|error| Error::limit("find group", error))?;
        Ok(ConsumerGroup::new(GroupId::new(name), name))
    }
}

fn check_topic(name: &str) -> Result<(), LimitError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=MAX_TOPIC).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let (value, allowed) =
        (format!("{:.80}", format!("{name:?}")), format!("1 to {MAX_TOPIC} of A-Z a-z 0-9 _ - . are allowed"));
    Err(LimitError { what: "topic name", value, allowed })
}

/// Checks that a message has nothing that MQS would lose.
pub(super) fn check_message(message: &Message) -> Result<(), LimitError> {
    let refuse = |what, value: String, allowed: &str| Err(LimitError { what, value, allowed: allowed.to_owned() });
    if !message.attributes.is_empty() {
        let allowed = "ROMA Connect MQS carries no attributes; put them into the body";
        return refuse("attributes", message.attributes.to_json().chars().take(80).collect(), allowed);
    }
    if !message.tags.is_empty() {
        let allowed = "ROMA Connect MQS carries no labels; put them into the body, or use another topic";
        return refuse("labels", message.tags.join(", "), allowed);
    }
    if message.deduplication_key.is_some() || message.deduplication_window.is_some() {
        let allowed = "ROMA Connect MQS stores every message; let consumers deduplicate by a value in the body";
        return refuse("deduplication key", "set".to_owned(), allowed);
    }
    if !message.delay.is_zero() {
        return refuse(
            "delay",
            format!("{:?}", message.delay),
            "ROMA Connect MQS has no delays; send the message later",
        );
    }
    Ok(())
}

/// Checks the sum of the bodies of one request.
pub(super) fn check_total(bytes: usize) -> Result<(), LimitError> {
    limits::in_range("size of the messages", bytes, &(0..=MAX_MQS_BYTES), " bytes")
}

/// The error of a message whose state is `fail`. The service gives no reason, so it may succeed later.
fn not_stored(operation: &'static str) -> Error {
    let refusal = Refusal {
        status: StatusCode::OK,
        code: None,
        foreign_code: None,
        class: Class::Transient,
        message: "the message was not stored (state: fail)".to_owned(),
        request_id: None,
        retry_after: None,
    };
    Error::new(operation, ErrorKind::Service(refusal))
}
