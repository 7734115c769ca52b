//! What a handler gets: a message with its deadline.

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
    message::{AckHandle, Attributes, Body, DeadLetterInfo, FailureReport, ReceivedMessage},
    trace_context::TraceContext,
    worker::{attributes::ATTEMPTS, handler::error::HandlerError},
};

/// A message on its way through a handler: body, attributes, labels, and how long it may take.
///
/// Cheap to move and to clone; it carries no right to acknowledge, the handler's answer does that. It keeps the answer in memory that
/// its message came with.
#[derive(Clone)]
pub struct Delivery {
    batch: Arc<Deliveries>,
    /// Its place in the batch.
    position: usize,
    retry: u32,
}

/// How many batches there were in this process.
static BATCHES: AtomicU64 = AtomicU64::new(0);

/// The messages of a consumed batch, in the order of consumption, and what they have in common.
pub(crate) struct Deliveries {
    /// Its own in this process.
    number: u64,
    messages: Vec<ReceivedMessage>,
    origin: Arc<Origin>,
    deadline: Instant,
    /// What was left until the deadline when they arrived.
    budget: Duration,
    signals: Signals,
    /// Why messages failed or were rejected, by their positions; usually none did.
    failures: Mutex<Vec<(usize, Failure)>>,
}

/// Why a message failed or was rejected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    pub(crate) report: FailureReport,
    /// How long reporting the failure waits, because nothing but this pause keeps the message from being redelivered for ever.
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
        let number = BATCHES.fetch_add(1, Relaxed);
        Arc::new(Self { number, messages, origin, deadline, budget, signals, failures: Mutex::default() })
    }

    /// Tells the batch from all others of this process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn messages(&self) -> &[ReceivedMessage] {
        &self.messages
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// Notes why the message at a position failed or was rejected.
    pub(crate) fn record_failure(&self, position: usize, failure: Failure) {
        self.recorded().push((position, failure));
    }

    /// Why the message at a position failed or was rejected, where that is known.
    pub(crate) fn failure(&self, position: usize) -> Option<Failure> {
        self.recorded().iter().find(|(of, _)| *of == position).map(|(_, failure)| failure.clone())
    }

    /// Why messages failed or were rejected, by their positions.
    pub(crate) fn failures(&self) -> Vec<(usize, Failure)> {
        self.recorded().clone()
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<(usize, Failure)>> {
        // No code that can panic runs under this lock.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery of the message at a position that there is.
    pub(crate) fn at(self: &Arc<Self>, position: usize) -> Delivery {
        debug_assert!(position < self.messages.len(), "{position} of {}", self.messages.len());
        Delivery { batch: self.clone(), position, retry: 0 }
    }

    /// Has every message looked at from a position on, one after the other.
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

/// Where a delivery or an event comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(crate) worker: String,
    pub(crate) queue: String,
    pub(crate) group: String,
    /// Whether a failure stops what is behind it.
    pub(crate) in_order: bool,
}

impl Origin {
    /// The worker's name.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The name or id of the queue, as the worker was given it.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The name or id of the consumer group, as the worker was given it.
    pub fn group(&self) -> &str {
        &self.group
    }
}

/// What the runs of a batch can learn while they go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    /// The handler is about to be stopped.
    pub(crate) cancelled: CancellationToken,
    /// The worker is shutting down.
    pub(crate) shutdown: CancellationToken,
    /// Ends the runs: the deadline or the end of the grace period has come.
    pub(crate) stop: CancellationToken,
    /// The batch is acknowledged: what has not begun by now comes again, so it must not begin any more.
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
    /// Where [`OnUndecodable`](crate::worker::OnUndecodable) does not say otherwise, a [reject](HandlerError::reject): a body that cannot
    /// be decoded now never can.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        self.message().body.parse().map_err(HandlerError::undecodable)
    }

    /// Why the message cannot be read, where it cannot: see [`ReceivedMessage::undecodable`]. Handlers never get one; observers do.
    pub fn undecodable(&self) -> Option<&str> {
        self.message().undecodable()
    }

    /// The attributes, each with its JSON text.
    pub fn attributes(&self) -> &Attributes {
        &self.message().attributes
    }

    /// The text of an attribute, where it is there and a string.
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.message().attributes.get_str(name)
    }

    /// The labels.
    pub fn tags(&self) -> &[String] {
        &self.message().tags
    }

    /// The name or id of the queue, as the worker was given it.
    pub fn queue(&self) -> &str {
        &self.batch.origin.queue
    }

    /// The name or id of the consumer group, as the worker was given it.
    pub fn group(&self) -> &str {
        &self.batch.origin.group
    }

    /// Which attempt this is, as far as is known, from 1: failed consumptions that this project's server tells of, and attempts
    /// before the message was [republished](crate::worker::OnFailure::Republish). Other services do not tell.
    pub fn attempt(&self) -> u32 {
        let before = failed_attempts(&self.message().attributes);
        before.saturating_add(self.message().attempt.unwrap_or(1))
    }

    /// Which retry within its lease this is: 0 for the first call; see [`Retry`](crate::layers::Retry).
    pub fn retry(&self) -> u32 {
        self.retry
    }

    /// The same for a further call within the lease.
    pub(crate) fn retried(mut self, retry: u32) -> Self {
        self.retry = retry;
        self
    }

    /// The message's place in its queue, the same each time it is delivered; sent by this project's server alone.
    pub fn sequence(&self) -> Option<u64> {
        self.message().sequence
    }

    /// Why and when a dead letter died; told by this project's server alone, and of dead letters alone.
    pub fn dead_letter(&self) -> Option<&DeadLetterInfo> {
        self.message().dead_letter.as_ref()
    }

    /// How long ago the message could be consumed first: since it was sent, or its delay was over. By the clocks of the server and
    /// of this machine; sent by this project's server alone.
    pub fn age(&self) -> Option<Duration> {
        let age = clock::now().as_millisecond().saturating_sub(self.message().entered_ms?);
        Some(Duration::from_millis(u64::try_from(age).unwrap_or(0)))
    }

    /// The trace in which the message was made, where its attributes say so.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::of(&self.message().attributes)
    }

    /// When the handler is stopped: the end of the lease, less what the acknowledgement needs. It cannot be extended.
    pub fn deadline(&self) -> Instant {
        self.batch.deadline
    }

    /// What is left until the [deadline](Self::deadline).
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Resolves shortly before the handler is stopped: a twentieth of its budget, at most a second. Cancel-safe.
    pub async fn cancelled(&self) {
        self.signals().cancelled.cancelled().await;
    }

    /// Whether the worker is shutting down: long work may want to stop at a good point.
    pub fn is_shutting_down(&self) -> bool {
        self.signals().shutdown.is_cancelled()
    }

    /// Notes why the message failed or was rejected.
    pub(crate) fn record_failure(&self, failure: Failure) {
        self.batch.record_failure(self.position, failure);
    }

    /// The number of its batch.
    pub(crate) fn batch(&self) -> u64 {
        self.batch.number
    }

    /// Whether messages behind one that fails are redelivered after it.
    pub fn is_in_order(&self) -> bool {
        self.batch.origin.in_order
    }

    pub(crate) fn budget(&self) -> Duration {
        self.batch.budget
    }

    /// Where it comes from: the worker, the queue, the group.
    pub fn origin(&self) -> &Origin {
        &self.batch.origin
    }

    /// Waits until the worker is shutting down.
    pub async fn shutting_down(&self) {
        self.signals().shutdown.cancelled().await;
    }

    /// What acknowledges it: another one for each delivery.
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

/// How many attempts have failed, as noted in a message; zero where strangers have spoilt the note.
pub(crate) fn failed_attempts(attributes: &Attributes) -> u32 {
    let failed = attributes.get_u64(ATTEMPTS).unwrap_or(0);
    u32::try_from(failed).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn attempts_are_counted_in_an_attribute_that_strangers_may_have_spoilt() {
        let attributes = |value: Value| Attributes::from_iter([(ATTEMPTS, value)]);
        assert_eq!(failed_attempts(&Attributes::new()), 0);
        assert_eq!(failed_attempts(&attributes(Value::from(2))), 2);
        assert_eq!(failed_attempts(&attributes(Value::from("many"))), 0);
        assert_eq!(failed_attempts(&attributes(Value::from(u64::MAX))), u32::MAX);
    }
}
