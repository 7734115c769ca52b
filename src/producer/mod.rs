//! [`Producer`]: collects messages into full requests, sends several at a time, and returns the result of each message.
//!
//! This file is the handle. `owner` is the task with the waiting messages, `batcher` decides which of them share a
//! request, and `delivery` sends one batch.

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
    client::{Client, SentMessage},
    later::after,
    limits::{LimitError, MAX_BYTES},
    message::{Body, Message},
    queue::QueueId,
    trace_context::TraceContext,
};

/// The largest message in a request, so that no request has more than 524 288 bytes.
const MAX_ENCODED: usize = MAX_BYTES - batcher::ENVELOPE;

/// Sends messages to one queue. Cloning is cheap: clones share the batches, the bounds and the order.
///
/// After all clones are dropped, accepted messages are still sent while the runtime lives. [`close`](Self::close) waits
/// for them and reports how many were not sent.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::{Message, Producer, queue::NewQueue, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let queue = server.client().create_queue(NewQueue::new("orders")).await?.id;
///
///     let producer = Producer::builder(server.client(), queue).build()?;
///     producer.send(Message::text("one")).await?; // waits until it is stored
///     let receipt = producer.enqueue(Message::text("two")).await?; // waits for room alone
///     receipt.await?;
///
///     let report = producer.close(Duration::from_secs(5)).await;
///     assert_eq!((report.sent, report.failed), (2, 0));
///     Ok(())
/// }
/// ```
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

/// The source of the trace context of a message.
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

/// The bounds of pending messages.
#[derive(Clone, Debug)]
struct Bounds {
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
}

impl Producer {
    /// Starts a producer for `queue`. For a FIFO queue set [`ordered`](ProducerBuilder::ordered), or use
    /// [`ProducerBuilder::find`].
    pub fn builder(client: Client, queue: impl Into<QueueId>) -> ProducerBuilder {
        ProducerBuilder::new(client, queue.into())
    }

    /// Sends a message. Returns when the service has stored it, with its id if ids were requested, and says whether it was a
    /// [duplicate](SentMessage::duplicate).
    ///
    /// Waits while the producer is full.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not withdraw a message that was already accepted.
    ///
    /// # Errors
    /// When the message is outside the limits, the service or the network fails, or the producer is closed.
    pub async fn send(&self, message: Message) -> Result<SentMessage, SendError> {
        self.enqueue(message).await?.await
    }

    /// Sends `value` as JSON, as [`send`](Self::send) does.
    ///
    /// # Errors
    /// When `value` cannot be serialized, in which case nothing is sent, and as [`send`](Self::send).
    pub async fn send_json<T: Serialize + ?Sized + Sync>(&self, value: &T) -> Result<SentMessage, SendError> {
        let body = Body::json(value).map_err(|error| LimitError {
            what: "body",
            value: error.to_string(),
            allowed: "a value that can be written as JSON is allowed".to_owned(),
        })?;
        self.send(Message::new(body)).await
    }

    /// Sends messages in order. Returns the result of each when all are settled.
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw messages that were already accepted. The others are not sent.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Vec<Result<SentMessage, SendError>> {
        let mut receipts = Vec::new();
        for message in messages {
            receipts.push(self.enqueue(message).await);
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

    /// Waits for room and accepts a message. The returned future resolves when the message is stored.
    ///
    /// # Cancel safety
    ///
    /// A dropped call accepted nothing.
    ///
    /// # Errors
    /// When the message is outside the limits, or the producer is closed.
    pub async fn enqueue(&self, message: Message) -> Result<SendFuture, SendError> {
        let message = self.trace.put(message);
        let size = self.check(&message)?;
        let closed = |_| SendError::Closed;
        let one = Arc::clone(&self.bounds.messages).acquire_owned().await.map_err(closed)?;
        let bytes = Arc::clone(&self.bounds.bytes).acquire_many_owned(self.share(size)).await.map_err(closed)?;
        Ok(self.hand_over(message, size, [one, bytes]))
    }

    /// Accepts a message if there is room. The receipt resolves when the message is stored.
    ///
    /// # Errors
    /// When the producer is full or closed, in which case the error has the message, or the message is outside the
    /// limits.
    pub fn try_send(&self, message: Message) -> Result<SendFuture, TrySendError> {
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

    /// Sends the waiting messages without lingering. Returns when all messages that were accepted before are settled.
    ///
    /// # Errors
    /// When the producer is closed before.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on the messages, which are sent anyway.
    pub async fn flush(&self) -> Result<(), SendError> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Flush(reply)).map_err(|_| SendError::Closed)?;
        done.await.map_err(|_| SendError::Closed)
    }

    /// Closes the producer and its clones. Sends the accepted messages, and gives up messages that are not settled within
    /// `grace`.
    ///
    /// A second close returns at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not reopen the producer.
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

    /// The results so far.
    pub fn report(&self) -> ProducerReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stats = &self.stats;
        ProducerReport {
            sent: read(&stats.sent),
            duplicates: read(&stats.duplicates),
            failed: read(&stats.failed),
            unsure: read(&stats.unsure),
            unsent: 0,
            requests: read(&stats.requests),
        }
    }

    /// The id of the queue.
    pub fn queue(&self) -> &QueueId {
        &self.queue
    }

    /// Checks a message alone, so that it cannot make its batch fail. Returns its exact size in a request.
    ///
    /// The API reference bounds the size of a request (5.3.1) without saying what counts. Requests of several messages
    /// keep the bound as a whole; a message with only a body may fill it alone.
    fn check(&self, message: &Message) -> Result<usize, LimitError> {
        self.client.check_message(message)?;
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

    /// The bytes that a message takes of the bound. A single message always fits.
    fn share(&self, size: usize) -> u32 {
        u32::try_from(size.min(self.bounds.max_bytes)).unwrap_or(u32::MAX)
    }

    fn hand_over(&self, message: Message, size: usize, room: [OwnedSemaphorePermit; 2]) -> SendFuture {
        let (reply, result) = oneshot::channel();
        let room = Room::new(size, room, Arc::clone(&self.counters));
        let entry = Entry { message, sequence: 0, since: Instant::now(), reply, room };
        let refused = self.commands.send(Command::Send(Box::new(entry)));
        if let Err(mpsc::error::SendError(Command::Send(entry))) = refused {
            // The producer was closed a moment ago; the receipt tells.
            entry.settle(Err(SendError::Closed));
        }
        SendFuture { result }
    }
}

/// Returns whether a message has only a body.
fn is_bare(message: &Message) -> bool {
    message.attributes.is_empty()
        && message.tags.is_empty()
        && message.delay.is_zero()
        && message.deduplication_key.is_none()
}

/// A future of the result of an accepted message. Dropping it does not withdraw the message.
#[derive(Debug)]
#[must_use = "the receipt says whether the message was stored"]
pub struct SendFuture {
    result: oneshot::Receiver<SendResult>,
}

impl Future for SendFuture {
    type Output = Result<SentMessage, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The task answers each message, unless the runtime ends before.
        Pin::new(&mut self.result).poll(context).map(|result| result.unwrap_or(Err(SendError::Abandoned)))
    }
}

/// The results of a producer's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerReport {
    /// Messages that the service has, `duplicates` included.
    pub sent: u64,
    /// Messages that were not stored, because the service had one with the same deduplication key.
    pub duplicates: u64,
    /// Messages that were not stored, `unsent` included.
    pub failed: u64,
    /// Messages that may be stored, because no answer arrived.
    pub unsure: u64,
    /// Messages that still waited when the producer was closed.
    pub unsent: u64,
    /// Batches that were sent.
    pub requests: u64,
}

/// The counters of a [`ProducerReport`].
#[derive(Debug, Default)]
struct Stats {
    sent: AtomicU64,
    duplicates: AtomicU64,
    failed: AtomicU64,
    unsure: AtomicU64,
    requests: AtomicU64,
}

impl Stats {
    fn settled(&self, tally: delivery::Tally) {
        let delivery::Tally { sent, duplicates, failed, unsure } = tally;
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
        self.unsure.fetch_add(unsure, Ordering::Relaxed);
    }

    fn batches(&self, count: u64) {
        self.requests.fetch_add(count, Ordering::Relaxed);
    }
}
