//! Messages and dead letters: send, consume, acknowledge (API reference 5.3).

use std::{pin::pin, time::Duration};

use http::{HeaderValue, Method};
use tokio::time::Instant;

use super::{
    Client,
    call::{Call, TimedAnswer},
    code::{Class, ErrorCode, classify},
    error::{Error, ErrorKind, Refusal},
    extensions::PollId,
    last_uri::LastUri,
    mqs,
    options::{ConsumeOptions, SendOptions},
    sent::{SendOutcome, SentMessage},
    tries::Repeat,
};
use crate::{
    limits::{self, LimitError, MAX_MESSAGES},
    message::{AckHandle, AckLine, AckStatus, Message, ReceivedMessage},
    queue::{QueueId, SourcePath, Stream},
    wire::{
        self, Dialect,
        extensions::{EXTENSIONS, Extensions, POLL},
        messages::{DELIVERIES, Sent, WAITED},
        received::Received,
    },
};

/// The tries of one call are over after this time at the latest, so a key that counts as long makes a repetition safe.
const LONGEST_TRIES: Duration = Duration::from_secs(120);

/// A consumed batch, with bounds for the start of its lease. The lease begins between the request and the answer, and
/// not before `sent + waited` if the service tells how long the request waited.
#[derive(Clone, Debug)]
pub(crate) struct Consumed {
    /// The messages in the order of consumption.
    pub(crate) messages: Vec<ReceivedMessage>,
    /// When the request was sent.
    pub(crate) sent: Instant,
    /// How long the request waited at the service for a first message, if the service tells.
    pub(crate) waited: Option<Duration>,
}

/// The result of an acknowledgement, counted over the whole batches that it names, not over its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckOutcome {
    /// The number of messages, from the start of the batch, that are settled.
    pub success: usize,
    /// The number of messages, at the end of the batch, that failed and are redelivered.
    pub fail: usize,
}

/// An answered acknowledgement, and the time that its successful try took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Acked {
    pub(crate) outcome: AckOutcome,
    pub(crate) took: Duration,
}

impl Client {
    /// Sends 1-10 messages with at most 524 288 bytes of bodies in total (5.3.1). Returns one outcome per message, in
    /// order. Each says whether the message was a [duplicate](SentMessage::duplicate).
    ///
    /// # Errors
    /// When a message is outside the limits, in which case nothing is sent, or the whole call fails. If the error
    /// [`is_unsure`](Error::is_unsure), the messages may be stored.
    ///
    /// # Cancel safety
    /// The service may store the messages although the future was dropped.
    pub async fn send(&self, queue: &QueueId, messages: &[Message]) -> Result<Vec<SendOutcome>, Error> {
        self.send_with(queue, messages, SendOptions::default()).await
    }

    /// As [`send`](Self::send), with options.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    /// As [`send`](Self::send).
    pub async fn send_with(
        &self,
        queue: &QueueId,
        messages: &[Message],
        options: SendOptions,
    ) -> Result<Vec<SendOutcome>, Error> {
        const NAME: &str = "send";
        self.check_messages(messages).map_err(|(index, error)| Error::new(NAME, ErrorKind::Limit(index, error)))?;
        if self.speaks_mqs() {
            return self.produce(queue, messages, options).await;
        }
        if let Some(index) = messages.iter().position(|message| message.deduplication_key.is_some()) {
            self.needs_deduplication(NAME, index).await?;
        }
        let is_long = |message: &Message| message.delay > limits::MAX_DELAY;
        let long = messages.iter().position(is_long);
        if let Some(index) = long {
            self.needs_long_delay(NAME, index, messages[index].delay).await?;
        }
        let path = ["queues", queue.as_str(), "messages"];
        let repeatable = options.allow_duplicates || are_deduplicated(messages, LONGEST_TRIES);
        let repeat = if repeatable { Repeat::Allowed } else { Repeat::Doubles };
        let body = wire::messages::encode_send(self.inner.wording, messages, options.return_ids);
        let asks = long.map(|_| (EXTENSIONS, HeaderValue::from_static("long-delay")));
        let call = Call::new(NAME, Method::POST, &path, repeat).body(body)?.header(asks);
        let sent = pin!(self.fetch(call, |answer| Ok(wire::messages::decode_sent(answer)?))).await?;
        if sent.len() == messages.len() {
            return Ok(sent.into_iter().map(|sent| outcome(NAME, sent)).collect());
        }
        let text = format!("{} messages were sent, and {} results came", messages.len(), sent.len());
        Err(Error::unsure(NAME, ErrorKind::Answer(http::StatusCode::CREATED, text.into())))
    }

    /// Checks that the service keeps deduplication keys. Another one would store each message without a word.
    async fn needs_deduplication(&self, name: &'static str, index: usize) -> Result<(), Error> {
        let refusal = || LimitError {
            what: "deduplication key",
            value: "set for a service that does not announce the extension deduplication".to_owned(),
            allowed: "only the server of this project keeps keys: send the message without one".to_owned(),
        };
        self.needs(name, Extensions::deduplication, || ErrorKind::Limit(Some(index), refusal())).await
    }

    /// Checks that the service accepts delays above the documented limit.
    async fn needs_long_delay(&self, name: &'static str, index: usize, delay: Duration) -> Result<(), Error> {
        let refusal = || LimitError {
            what: "delay",
            value: format!("{delay:?}, and the service does not announce the extension long-delay"),
            allowed: "0 to 604800000 ms (7 days) are allowed there".to_owned(),
        };
        self.needs(name, Extensions::long_delay, || ErrorKind::Limit(Some(index), refusal())).await
    }

    /// Checks that the service announces an extension, and asks it if it has not answered yet.
    async fn needs(
        &self,
        name: &'static str,
        announced: fn(Extensions) -> bool,
        refusal: impl FnOnce() -> ErrorKind,
    ) -> Result<(), Error> {
        if announced(self.extensions()) {
            return Ok(());
        }
        // The first answer says which extensions there are. A refusal says it too.
        let asked = self.quotas().await;
        match asked {
            _ if announced(self.extensions()) => Ok(()),
            Err(error) if error.status().is_none() || error.is_retryable() => Err(error),
            _ => Err(Error::new(name, refusal())),
        }
    }

    /// The exact size of a message within a send, in bytes.
    pub(crate) fn encoded_len(&self, message: &Message) -> usize {
        // Only attributes could fail to serialize, and they are JSON already.
        wire::messages::encoded_len(self.inner.wording, message).unwrap_or(usize::MAX)
    }

    /// Leases the next messages or dead letters of a group (5.3.2, 5.3.4), and waits for a first one. Returns no
    /// messages if none arrived in time, and may return fewer than requested although the queue has more.
    ///
    /// # Errors
    /// When an option is outside its limits, or the call fails. A failed call is repeated only if it cannot have leased
    /// messages.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave messages leased until their `ack_wait` has passed.
    pub async fn consume(&self, source: &SourcePath, options: &ConsumeOptions) -> Result<Vec<ReceivedMessage>, Error> {
        self.consume_batch(source, options, None, None).await.map(|batch| batch.messages)
    }

    /// As [`consume`](Self::consume), with an id by which [`end_polls`](Self::end_polls) can end the call while it
    /// waits. Use a new id for each call. The client sends the id only to a service that announced this extension.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    ///
    /// # Cancel safety
    /// As [`consume`](Self::consume).
    pub async fn consume_as(
        &self,
        source: &SourcePath,
        options: &ConsumeOptions,
        poll: &PollId,
    ) -> Result<Vec<ReceivedMessage>, Error> {
        self.consume_batch(source, options, Some(poll), None).await.map(|batch| batch.messages)
    }

    /// As [`consume`](Self::consume), with bounds for the start of the lease. `last_uri` is for calls of this source alone.
    pub(crate) async fn consume_batch(
        &self,
        source: &SourcePath,
        options: &ConsumeOptions,
        poll: Option<&PollId>,
        last_uri: Option<&LastUri>,
    ) -> Result<Consumed, Error> {
        let (name, last) = match source.stream {
            Stream::Messages => ("consume", "messages"),
            Stream::DeadLetters => ("consume dead letters", "deadletters"),
        };
        self.check_consume(source.stream, options).map_err(|error| Error::limit(name, error))?;
        let (queue, group) = (source.queue.as_str(), source.group.as_str());
        let path = match self.dialect() {
            Dialect::Dms => ["queues", queue, "groups", group, last],
            Dialect::Mqs => ["topic", queue, "group", group, last],
        };
        let id = poll.filter(|_| self.extensions().end_poll()).and_then(PollId::header);
        let call = Call::new(name, Method::GET, &path, Repeat::Leases)
            .query(options.query())
            .header(id.map(|id| (POLL, id)))
            .header(self.asks_for(source.stream).map(|names| (EXTENSIONS, HeaderValue::from_static(names))))
            .wait(options.poll_wait)
            .last_uri(last_uri);
        let fetched = self.fetch_answer(call, |TimedAnswer { response, sent }| {
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let read = match self.dialect() {
                Dialect::Dms => {
                    wire::messages::decode_received(response.body(), header(DELIVERIES).unwrap_or_default())?
                }
                Dialect::Mqs => wire::mqs::decode_received(response.body(), self.inner.content.receive)?,
            };
            let Received { messages, cut_off } = read;
            if let Some(reason) = cut_off {
                let delivered = messages.len();
                tracing::warn!(operation = name, %reason, delivered, "the rest of an answer cannot be read: its messages are redelivered when their lease ends");
            }
            let waited = header(WAITED).and_then(|text| text.parse().ok()).map(Duration::from_millis);
            Ok(Consumed { messages, sent: *sent, waited })
        });
        pin!(fetched).await
    }

    /// The extensions of the answer that a consume call asks for.
    fn asks_for(&self, stream: Stream) -> Option<&'static str> {
        let extensions = self.extensions();
        match (extensions.message_id(), stream == Stream::DeadLetters && extensions.reason()) {
            (true, true) => Some("message-id, reason"),
            (true, false) => Some("message-id"),
            (false, true) => Some("reason"),
            (false, false) => None,
        }
    }

    /// Acknowledges 1-10 messages in the order of their consumption (5.3.3, 5.3.5). An acknowledgement ends the batch:
    /// the first message that is not listed as a success fails, and so do all messages after it.
    ///
    /// # Errors
    /// [`is_lost_lease`](Error::is_lost_lease) when the lease was over. It is also [`is_unsure`](Error::is_unsure) if
    /// an earlier try was not answered and may have counted.
    ///
    /// # Cancel safety
    /// The service may settle the messages although the future was dropped.
    pub async fn acknowledge(&self, source: &SourcePath, acks: &[(AckHandle, AckStatus)]) -> Result<AckOutcome, Error> {
        let lines = acks.iter().map(|(handle, status)| AckLine::new(handle, *status));
        self.settle(source, lines, None, None).await.map(|acked| acked.outcome)
    }

    /// As [`acknowledge`](Self::acknowledge), with lines that can give the reason of a failure.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge), and when a reason is not 1-64 of `a-z 0-9 _ -`.
    ///
    /// # Cancel safety
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn acknowledge_lines(&self, source: &SourcePath, lines: &[AckLine<'_>]) -> Result<AckOutcome, Error> {
        self.settle(source, lines.iter().copied(), None, None).await.map(|acked| acked.outcome)
    }

    /// As [`acknowledge`](Self::acknowledge), with tries until `deadline`, which is usually the end of the lease.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    ///
    /// # Cancel safety
    /// As [`acknowledge`](Self::acknowledge).
    pub async fn acknowledge_until(
        &self,
        source: &SourcePath,
        acks: &[(AckHandle, AckStatus)],
        deadline: Instant,
    ) -> Result<AckOutcome, Error> {
        let lines = acks.iter().map(|(handle, status)| AckLine::new(handle, *status));
        self.settle(source, lines, Some(deadline), None).await.map(|acked| acked.outcome)
    }

    /// As [`acknowledge_lines`](Self::acknowledge_lines), with tries until `deadline`. Returns also how long the call
    /// took. `last_uri` is for acknowledgements of this source alone.
    pub(crate) async fn acknowledge_timed(
        &self,
        source: &SourcePath,
        lines: &[AckLine<'_>],
        deadline: Instant,
        last_uri: &LastUri,
    ) -> Result<Acked, Error> {
        self.settle(source, lines.iter().copied(), Some(deadline), Some(last_uri)).await
    }

    async fn settle(
        &self,
        source: &SourcePath,
        lines: impl ExactSizeIterator<Item = AckLine<'_>> + Clone,
        deadline: Option<Instant>,
        last_uri: Option<&LastUri>,
    ) -> Result<Acked, Error> {
        let (queue, group) = (source.queue.as_str(), source.group.as_str());
        let (name, path): (_, &[&str]) = match source.stream {
            Stream::Messages if self.speaks_mqs() => ("acknowledge", &["topic", queue, "group", group, "messages"]),
            Stream::Messages => ("acknowledge", &["queues", queue, "groups", group, "ack"]),
            Stream::DeadLetters => {
                ("acknowledge dead letters", &["queues", queue, "groups", group, "deadletters", "ack"])
            }
        };
        check_lines(lines.clone()).map_err(|error| Error::limit(name, error))?;
        let body = wire::messages::encode_ack(self.dialect(), lines, self.extensions());
        let call =
            Call::new(name, Method::POST, path, Repeat::Allowed).body(Ok(body))?.deadline(deadline).last_uri(last_uri);
        let fetched = self.fetch_answer(call, |TimedAnswer { response, sent }| {
            let (success, fail) = wire::messages::decode_acked(response.body())?;
            Ok(Acked { outcome: AckOutcome { success, fail }, took: sent.elapsed() })
        });
        pin!(fetched).await
    }
}

fn check_lines<'a>(mut lines: impl ExactSizeIterator<Item = AckLine<'a>>) -> Result<(), LimitError> {
    limits::in_range("number of acknowledgements", lines.len(), &(1..=MAX_MESSAGES), "")?;
    lines.try_for_each(|line| line.failure.map_or(Ok(()), |failure| limits::reason(&failure.reason)))
}

impl Client {
    fn check_messages(&self, messages: &[Message]) -> Result<(), (Option<usize>, LimitError)> {
        limits::message_count(messages.len()).map_err(|error| (None, error))?;
        for (index, message) in messages.iter().enumerate() {
            self.check_message(message).map_err(|error| (Some(index), error))?;
        }
        let bytes = messages.iter().map(|message| message.body.len()).sum();
        let total = if self.speaks_mqs() { mqs::check_total(bytes) } else { limits::total_bytes(bytes) };
        total.map_err(|error| (None, error))
    }

    /// Checks one message against the limits of a single message, and against what the API can carry.
    pub(crate) fn check_message(&self, message: &Message) -> Result<(), LimitError> {
        if !self.speaks_mqs() {
            return check_message(message);
        }
        check_body(message)?;
        mqs::check_total(message.body.len())?;
        mqs::check_message(message)
    }

    fn check_consume(&self, stream: Stream, options: &ConsumeOptions) -> Result<(), LimitError> {
        options.check_for(self.dialect())?;
        match (self.dialect(), stream) {
            (Dialect::Dms, _) => check_dead_letters(stream, options),
            (Dialect::Mqs, Stream::Messages) => Ok(()),
            (Dialect::Mqs, Stream::DeadLetters) => Err(LimitError {
                what: "source",
                value: "dead letters".to_owned(),
                allowed: "ROMA Connect MQS has none; park messages in another topic, and consume that".to_owned(),
            }),
        }
    }
}

/// Checks one message against the limits of a single message.
pub(crate) fn check_message(message: &Message) -> Result<(), LimitError> {
    check_body(message)?;
    limits::total_bytes(message.body.len())?;
    limits::labels(&message.tags)?;
    limits::deduplication(message.deduplication_key.as_deref(), message.deduplication_window)?;
    limits::delay(message.delay)
}

fn check_body(message: &Message) -> Result<(), LimitError> {
    if let Some(fault) = message.body.fault() {
        let allowed = "a body that is one JSON value is needed".to_owned();
        return Err(LimitError { what: "body", value: format!("unreadable in one message ({fault})"), allowed });
    }
    Ok(())
}

/// Whether the service stores each of these messages once if they are sent again within `time`.
pub(crate) fn are_deduplicated<'a>(messages: impl IntoIterator<Item = &'a Message>, time: Duration) -> bool {
    messages.into_iter().all(|message| {
        let window = message.deduplication_window.unwrap_or(limits::DEDUPLICATION_WINDOW);
        message.deduplication_key.is_some() && window >= time
    })
}

fn check_dead_letters(stream: Stream, options: &ConsumeOptions) -> Result<(), LimitError> {
    if stream == Stream::DeadLetters && !options.filter.is_empty() {
        let value = options.filter.tags.len().to_string();
        let allowed = "dead letters carry none to filter by".to_owned();
        return Err(LimitError { what: "number of labels", value, allowed });
    }
    Ok(())
}

/// The outcome of one message, which may fail within a successful send.
fn outcome(operation: &'static str, sent: Sent) -> SendOutcome {
    if sent.taken {
        return Ok(SentMessage { id: sent.id, duplicate: sent.duplicate });
    }
    let status = http::StatusCode::BAD_REQUEST;
    let code = sent.code.as_deref().and_then(ErrorCode::parse);
    let refusal = Refusal {
        status,
        code,
        foreign_code: sent.code.filter(|_| code.is_none()),
        // Without a code the failure may not be the message's own fault. The message was not stored.
        class: code.map_or(Class::Transient, |code| classify(status, Some(code))),
        message: sent.error,
        request_id: None,
        retry_after: None,
    };
    Err(Error::new(operation, ErrorKind::Service(refusal)))
}
