//! Sending many messages: a [`Producer`] gathers them into full requests, keeps several on their way, and answers for
//! each message by itself.
//!
//! `batcher` decides what goes together, `owner` is the task that has the waiting messages, `delivery` sends one
//! batch; this file is the handle.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot},
    time::Instant,
};

mod batcher;
mod builder;
mod delivery;
mod error;
mod metrics;
mod owner;

pub use builder::ProducerBuilder;
use delivery::{Entry, Room};
use error::SendResult;
pub use error::{SendError, TrySendError};
use metrics::Counters;
pub use metrics::ProducerMetrics;
use owner::Command;

use crate::{
    client::{Client, check_message},
    later::after,
    limits::{LimitError, MAX_BYTES},
    message::{Body, Message, MessageId},
    queue::QueueId,
    trace_context::TraceContext,
};

/// The largest message within a request, so that no request has more than 524 288 bytes.
const MAX_ENCODED: usize = MAX_BYTES - batcher::ENVELOPE;

/// Sends messages to one queue. Cloning is cheap: clones share the batches, the bounds and the order.
///
/// When all clones are dropped, what was accepted is still sent, as long as the runtime lives; [`close`](Self::close)
/// waits for it and says what did not make it.
#[derive(Clone, Debug)]
pub struct Producer {
    client: Client,
    queue: QueueId,
    commands: mpsc::UnboundedSender<Command>,
    bounds: Bounds,
    stats: Arc<Stats>,
    counters: Arc<Counters>,
    trace: Trace,
}

/// Where the trace of a message is asked for.
#[derive(Clone, Default)]
struct Trace(Option<Arc<dyn Fn() -> Option<TraceContext> + Send + Sync>>);

impl Trace {
    fn put(&self, message: Message) -> Message {
        match self.0.as_ref().and_then(|current| current()) {
            Some(context) => message.trace_context(&context),
            None => message,
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trace(on)" } else { "Trace(off)" })
    }
}

/// What may be waiting or on its way at a time.
#[derive(Clone, Debug)]
struct Bounds {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
}

impl Producer {
    /// Begins a producer for `queue`. For a FIFO queue set [`ordered`](ProducerBuilder::ordered), or let
    /// [`ProducerBuilder::find`] look it up.
    pub fn builder(client: Client, queue: impl Into<QueueId>) -> ProducerBuilder {
        ProducerBuilder::new(client, queue.into())
    }

    /// Sends a message, and answers when the service has stored it; with its id where ids were asked for.
    ///
    /// Waits while the producer is full. Dropping the future takes a message that is already accepted not back.
    ///
    /// # Errors
    /// When the message is outside the limits, the service or the network fails, or the producer is closed.
    pub async fn send(&self, message: Message) -> Result<Option<MessageId>, SendError> {
        self.accept(message).await?.await
    }

    /// Sends `value` as JSON; as [`send`](Self::send).
    ///
    /// # Errors
    /// When `value` cannot be written as JSON (nothing is sent then), and as [`send`](Self::send).
    pub async fn send_json<T: Serialize + ?Sized + Sync>(&self, value: &T) -> Result<Option<MessageId>, SendError> {
        let body = Body::json(value).map_err(|error| LimitError {
            what: "body",
            value: error.to_string(),
            allowed: "a value that can be written as JSON is allowed".to_owned(),
        })?;
        self.send(Message::new(body)).await
    }

    /// Sends messages in their order, and answers for each when all are settled.
    pub async fn send_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<Result<Option<MessageId>, SendError>> {
        let mut receipts = Vec::new();
        for message in messages {
            receipts.push(self.accept(message).await);
        }
        let mut results = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            results.push(match receipt {
                Ok(receipt) => receipt.await,
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Accepts a message when there is room for it; the receipt answers when it is stored. Cancel-safe: a dropped
    /// call accepted nothing.
    ///
    /// # Errors
    /// When the message is outside the limits, or the producer is closed.
    pub async fn accept(&self, message: Message) -> Result<Receipt, SendError> {
        let message = self.trace.put(message);
        let size = self.check(&message)?;
        let closed = |_| SendError::Closed;
        let one = Arc::clone(&self.bounds.messages).acquire_owned().await.map_err(closed)?;
        let bytes = Arc::clone(&self.bounds.bytes).acquire_many_owned(self.share(size)).await.map_err(closed)?;
        Ok(self.hand_over(message, size, [one, bytes]))
    }

    /// Accepts a message if there is room for it at once; the receipt answers when it is stored.
    ///
    /// # Errors
    /// When the producer is full or closed, which gives the message back, or the message is outside the limits.
    pub fn try_send(&self, message: Message) -> Result<Receipt, TrySendError> {
        let message = self.trace.put(message);
        let size = self.check(&message)?;
        let one = Arc::clone(&self.bounds.messages).try_acquire_owned();
        let bytes = Arc::clone(&self.bounds.bytes).try_acquire_many_owned(self.share(size));
        match (one, bytes) {
            (Ok(one), Ok(bytes)) => Ok(self.hand_over(message, size, [one, bytes])),
            (Err(TryAcquireError::Closed), _) | (_, Err(TryAcquireError::Closed)) => {
                Err(TrySendError::Closed(Box::new(message)))
            }
            _ => Err(TrySendError::Full(Box::new(message))),
        }
    }

    /// Sends what waits without lingering, and answers when everything accepted before is settled.
    ///
    /// # Errors
    /// When the producer is closed meanwhile.
    pub async fn flush(&self) -> Result<(), SendError> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Flush(reply)).map_err(|_| SendError::Closed)?;
        done.await.map_err(|_| SendError::Closed)
    }

    /// Accepts nothing more from any clone, sends what was accepted, and gives up what is not settled after `grace`.
    ///
    /// Dropping the future does not reopen the producer. A second close answers at once.
    pub async fn close(&self, grace: Duration) -> ProducerReport {
        self.bounds.messages.close();
        self.bounds.bytes.close();
        let (reply, done) = oneshot::channel();
        let unsent = match self.commands.send(Command::Close(after(Instant::now(), grace), reply)) {
            Ok(()) => done.await.unwrap_or(0),
            Err(_) => 0,
        };
        ProducerReport { unsent, ..self.report() }
    }

    /// What became of the messages so far.
    pub fn report(&self) -> ProducerReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &self.stats;
        ProducerReport {
            sent: read(&stats.sent),
            failed: read(&stats.failed),
            unsure: read(&stats.unsure),
            unsent: 0,
            requests: read(&stats.requests),
        }
    }

    /// The queue.
    pub fn queue(&self) -> &QueueId {
        &self.queue
    }

    /// Checks a message by itself, so that it cannot take its batch with it, and gives its exact size in a request.
    ///
    /// The reference bounds the load of a request (5.3.1) and does not say what counts: requests keep to it as a whole. Only a
    /// bare body may fill it alone, which is allowed whatever counts but the frame.
    fn check(&self, message: &Message) -> Result<usize, LimitError> {
        check_message(message)?;
        let size = self.client.encoded_len(message);
        if size > MAX_ENCODED && !is_bare(message) {
            return Err(LimitError {
                what: "size of the message with its attributes and labels",
                value: format!("{size} bytes"),
                allowed: format!(
                    "at most {MAX_ENCODED} are allowed, so that its request has at most {MAX_BYTES} bytes"
                ),
            });
        }
        Ok(size)
    }

    /// What a message takes of the bytes: a single one must fit whatever the bound.
    fn share(&self, size: usize) -> u32 {
        u32::try_from(size.min(self.bounds.max_bytes)).unwrap_or(u32::MAX)
    }

    fn hand_over(&self, message: Message, size: usize, room: [OwnedSemaphorePermit; 2]) -> Receipt {
        let (reply, result) = oneshot::channel();
        let room = Room::new(size, room, Arc::clone(&self.counters));
        let entry = Entry { message, sequence: 0, since: Instant::now(), reply, room };
        let refused = self.commands.send(Command::Send(Box::new(entry)));
        if let Err(mpsc::error::SendError(Command::Send(entry))) = refused {
            // It was closed a moment ago: the receipt says so.
            entry.settle(Err(SendError::Closed));
        }
        Receipt { result }
    }
}

/// Whether a message is nothing but a body.
fn is_bare(message: &Message) -> bool {
    message.attributes.is_empty() && message.tags.is_empty() && message.delay.is_zero()
}

/// The answer to an accepted message, when it comes. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "the receipt says whether the message was stored"]
pub struct Receipt {
    result: oneshot::Receiver<SendResult>,
}

impl Future for Receipt {
    type Output = Result<Option<MessageId>, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The task answers for every message, unless the runtime ends before.
        Pin::new(&mut self.result).poll(context).map(|result| result.unwrap_or(Err(SendError::Abandoned)))
    }
}

/// What became of a producer's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerReport {
    /// Stored.
    pub sent: u64,
    /// Surely not stored, `unsent` ones included.
    pub failed: u64,
    /// Perhaps stored: no answer came.
    pub unsure: u64,
    /// Accepted, and still waiting when the producer was closed.
    pub unsent: u64,
    /// Batches that the messages went in.
    pub requests: u64,
}

/// The counts behind a [`ProducerReport`].
#[derive(Debug, Default)]
struct Stats {
    sent: AtomicU64,
    failed: AtomicU64,
    unsure: AtomicU64,
    requests: AtomicU64,
}

impl Stats {
    fn settled(&self, sent: u64, failed: u64, unsure: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
        self.unsure.fetch_add(unsure, Ordering::Relaxed);
    }

    fn batches(&self, count: u64) {
        self.requests.fetch_add(count, Ordering::Relaxed);
    }
}
