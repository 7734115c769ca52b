//! [`Delivery`]: a message as its handler receives it, with its deadline.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    message::{AckHandle, Attributes, Body, DeadLetterInfo, FailureReport, MessageId, ReceivedMessage},
    trace_context::TraceContext,
    worker::{attributes::ATTEMPTS, handler::error::HandlerError, settlement::lease::least_run},
};

/// A message as its handler receives it: body, attributes, labels, and the time that the handler has.
///
/// Cheap to move and to clone. It cannot acknowledge the message; the result of the handler does that. It keeps the
/// whole reply of the service, with which its message came, in memory.
///
/// ```
/// use dms_worker::worker::{Delivery, HandlerError};
///
/// async fn charge(delivery: Delivery) -> Result<(), HandlerError> {
///     let cents: u64 = delivery.json()?; // a body that cannot be decoded is rejected
///     if delivery.attribute("currency").as_deref() != Some("EUR") {
///         return Err(HandlerError::reject("only euros can be charged"));
///     }
///     println!("{cents} cents, attempt {}, {:?} left", delivery.attempt(), delivery.remaining());
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Delivery {
    batch: Arc<Deliveries>,
    /// Its position in the batch.
    position: usize,
    retry: u32,
}

/// The number of batches so far in this process.
static BATCHES: AtomicU64 = AtomicU64::new(0);

/// The messages of a consumed batch, in the order of consumption.
pub(crate) struct Deliveries {
    /// A number that no other batch of this process has.
    number: u64,
    messages: Vec<ReceivedMessage>,
    origin: Arc<Origin>,
    deadline: Instant,
    /// The time from the arrival of the messages to the deadline.
    budget: Duration,
    /// The time with which a handler may start, however long others took.
    ample_time: Duration,
    signals: Signals,
    /// The failures of messages, by their positions. Usually empty.
    failures: Mutex<Vec<(usize, Failure)>>,
}

/// Why a message failed or was rejected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    pub(crate) report: FailureReport,
    /// How long to wait before the failure is reported. Only this pause slows the redelivery of a message that its
    /// queue redelivers endlessly.
    pub(crate) pause: Option<Duration>,
}

impl Deliveries {
    pub(crate) fn new(
        messages: Vec<ReceivedMessage>,
        origin: Arc<Origin>,
        arrived: Instant,
        deadline: Instant,
        signals: Signals,
    ) -> Arc<Self> {
        let budget = deadline.saturating_duration_since(arrived);
        let ample_time = (budget / 2).max(least_run(budget));
        let number = BATCHES.fetch_add(1, Relaxed);
        Arc::new(Self { number, messages, origin, deadline, budget, ample_time, signals, failures: Mutex::default() })
    }

    /// A number that no other batch of this process has.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn messages(&self) -> &[ReceivedMessage] {
        &self.messages
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Records why the message at a position failed or was rejected.
    pub(crate) fn record_failure(&self, position: usize, failure: Failure) {
        self.recorded().push((position, failure));
    }

    /// Why the message at a position failed or was rejected, if that is known.
    pub(crate) fn failure(&self, position: usize) -> Option<Failure> {
        self.recorded().iter().find(|(of, _)| *of == position).map(|(_, failure)| failure.clone())
    }

    /// All recorded failures, by the positions of their messages.
    pub(crate) fn failures(&self) -> Vec<(usize, Failure)> {
        self.recorded().clone()
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<(usize, Failure)>> {
        // No code that can panic runs under this lock.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery of the message at a position, which must exist.
    pub(crate) fn at(self: &Arc<Self>, position: usize) -> Delivery {
        debug_assert!(position < self.messages.len(), "{position} of {}", self.messages.len());
        Delivery { batch: self.clone(), position, retry: 0 }
    }

    /// Calls `look` for every message from a position on, in order.
    pub(crate) fn each_from(self: &Arc<Self>, first: usize, mut look: impl FnMut(usize, &Delivery)) {
        let mut delivery = Delivery { batch: self.clone(), position: first, retry: 0 };
        for position in first..self.messages.len() {
            delivery.position = position;
            look(position, &delivery);
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliveries({})", self.messages.len())
    }
}

/// The worker, the queue and the group of a delivery or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(crate) worker: String,
    pub(crate) queue: String,
    pub(crate) group: String,
    /// Whether a failure stops the messages after it.
    pub(crate) in_order: bool,
}

impl Origin {
    /// The worker's name.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The queue's name or id, as set in the builder.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The consumer group's name or id, as set in the builder.
    pub fn group(&self) -> &str {
        &self.group
    }
}

/// The signals to the runs of a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// The handler is about to be stopped.
    pub(crate) cancelled: CancellationToken,
    /// The worker is shutting down.
    pub(crate) shutdown: CancellationToken,
    /// The runs have to end, because of the deadline or the end of the grace period.
    pub(crate) stop: CancellationToken,
    /// The batch is acknowledged. Messages that have not started by now are redelivered, so they must not start any
    /// more.
    pub(crate) settled: CancellationToken,
}

impl Signals {
    pub(crate) fn new(shutdown: CancellationToken, stop: CancellationToken) -> Self {
        Self { cancelled: CancellationToken::new(), shutdown, stop, settled: CancellationToken::new() }
    }
}

impl Delivery {
    /// The body, as raw JSON.
    pub fn body(&self) -> &Body {
        &self.message().body
    }

    /// Decodes the body.
    ///
    /// # Errors
    /// If the body cannot be decoded. Unless [`OnUndecodable`](crate::worker::OnUndecodable) says otherwise, the error
    /// [rejects](HandlerError::reject) the message, because its body will never be decodable.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.message().body.parse().map_err(HandlerError::undecodable)
    }

    /// Why the message cannot be read; see [`ReceivedMessage::undecodable`]. Only observers receive such a message,
    /// never handlers.
    pub fn undecodable(&self) -> Option<&str> {
        self.message().undecodable()
    }

    /// The attributes, each with its JSON text.
    pub fn attributes(&self) -> &Attributes {
        &self.message().attributes
    }

    /// The text of an attribute, if it exists and is a string.
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.message().attributes.get_str(name)
    }

    /// The labels.
    pub fn tags(&self) -> &[String] {
        &self.message().tags
    }

    /// The queue's name or id, as set in the builder.
    pub fn queue(&self) -> &str {
        &self.batch.origin.queue
    }

    /// The consumer group's name or id, as set in the builder.
    pub fn group(&self) -> &str {
        &self.batch.origin.group
    }

    /// The id of the message, which [`send`](crate::Client::send_with) and [`Producer::send`](crate::Producer::send) return: opaque, and
    /// the same at each delivery, also of the copies that workers and redrives make. A handler that records the ids of finished
    /// messages can be idempotent.
    ///
    /// This project's server tells it. From other services it is `None`, unless the attribute `dms-message-id` has one.
    pub fn id(&self) -> Option<MessageId> {
        self.message().message_id()
    }

    /// The number of this attempt, from 1, as far as is known. It counts failed deliveries, which this project's server
    /// reports and which the worker counts itself over ROMA Connect MQS, and attempts before the message was [republished](crate::worker::OnFailure::Republish).
    pub fn attempt(&self) -> u32 {
        let before = failed_attempts(&self.message().attributes);
        before.saturating_add(self.message().attempt.unwrap_or(1))
    }

    /// The number of this retry within the lease, 0 for the first call; see [`Retry`](crate::layers::Retry).
    pub fn retry(&self) -> u32 {
        self.retry
    }

    /// The same delivery for another call within the lease.
    pub(crate) fn retried(mut self, retry: u32) -> Self {
        self.retry = retry;
        self
    }

    /// The place of the message in its queue, the same for each delivery. Only this project's server sends it.
    pub fn sequence(&self) -> Option<u64> {
        self.message().sequence
    }

    /// Why and when the message became a dead letter. Only this project's server sends it, and only for dead letters.
    pub fn dead_letter(&self) -> Option<&DeadLetterInfo> {
        self.message().dead_letter.as_ref()
    }

    /// The time since the message first became available: since it was sent, or its delay was over. It depends on the
    /// clocks of the server and of this machine. Only this project's server sends it.
    pub fn age(&self) -> Option<Duration> {
        let age = clock::now().as_millisecond().saturating_sub(self.message().entered_ms?);
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    /// The trace in which the message was sent, if its attributes name one.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::of(&self.message().attributes)
    }

    /// When the handler is stopped: the end of the lease, minus the time that the acknowledgement needs. It cannot be
    /// extended.
    ///
    /// This is an instant of tokio's clock, because tests that pause the clock have to see it move.
    pub fn deadline(&self) -> Instant {
        self.batch.deadline
    }

    /// The time until the [deadline](Self::deadline).
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Resolves shortly before the handler is stopped: a twentieth of its time, at most a second.
    ///
    /// # Cancel safety
    /// This method is cancel-safe.
    pub async fn cancelled(&self) {
        self.signals().cancelled.cancelled().await;
    }

    /// Whether the worker is shutting down, so that long work can end at a good point.
    pub fn is_shutting_down(&self) -> bool {
        self.signals().shutdown.is_cancelled()
    }

    /// Records why the message failed or was rejected.
    pub(crate) fn record_failure(&self, failure: Failure) {
        self.batch.record_failure(self.position, failure);
    }

    /// The number of its batch.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.number
    }

    /// Whether messages after a failed one are redelivered after it.
    pub fn is_in_order(&self) -> bool {
        self.batch.origin.in_order
    }

    pub(crate) fn budget(&self) -> Duration {
        self.batch.budget
    }

    /// The time with which its handler may start, however long others took.
    pub(crate) fn ample_time(&self) -> Duration {
        self.batch.ample_time
    }

    /// The worker, the queue and the group of the delivery.
    pub fn origin(&self) -> &Origin {
        &self.batch.origin
    }

    /// Waits until the worker is shutting down. Cancel-safe.
    pub async fn shutting_down(&self) {
        self.signals().shutdown.cancelled().await;
    }

    /// The handle for acknowledging this delivery. Each delivery has another one.
    pub fn handle(&self) -> &AckHandle {
        &self.message().handle
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.batch.signals
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn message(&self) -> &ReceivedMessage {
        &self.batch.messages[self.position]
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", &self.queue())
            .field("group", &self.group())
            .field("message", self.message())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// The number of failed attempts that the attributes record; zero if the attribute is not a number.
pub(crate) fn failed_attempts(attributes: &Attributes) -> u32 {
    let failed = attributes.get_u64(ATTEMPTS).unwrap_or(0);
    u32::try_from(failed).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_attempt_count_that_is_not_a_number_is_ignored() {
        let attributes = |value: Value| Attributes::from_iter([(ATTEMPTS, value)]);
        assert_eq!(failed_attempts(&Attributes::new()), 0);
        assert_eq!(failed_attempts(&attributes(Value::from(2))), 2);
        assert_eq!(failed_attempts(&attributes(Value::from("many"))), 0);
        assert_eq!(failed_attempts(&attributes(Value::from(u64::MAX))), u32::MAX);
    }
}
