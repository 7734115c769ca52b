//! [`BatchHandler`]: what a user implements to handle several messages in one call, and [`Batching`], which says which.

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;

use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// Handles several messages in one call, with a result for each: for bulk inserts, bulk requests, or one transaction.
///
/// The result of each message goes through the failure policy and into the one acknowledgement of the batch with which
/// it was consumed, as with a [`Handler`](crate::worker::Handler). [`Batching`] says which messages share a call.
///
/// The future is dropped at the [deadline](Delivery::deadline) of the first of its messages. In that case, and if it
/// panics, none of its messages is done.
///
/// ```
/// use dms_worker::worker::{BatchHandler, Delivery, HandlerError};
///
/// struct Archive;
///
/// #[async_trait::async_trait]
/// impl BatchHandler for Archive {
///     async fn handle_batch(
///         &self,
///         deliveries: Vec<Delivery>,
///     ) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
///         let rows: Vec<Result<u64, HandlerError>> = deliveries.iter().map(Delivery::json).collect();
///         // Insert all rows that could be decoded here. `?` on the error of the insert fails the whole call.
///         Ok(rows.into_iter().map(|row| row.map(drop)).collect())
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a batch handler",
    note = "implement `BatchHandler`, or wrap an async function of one `Vec<Delivery>` with `batch_handler_fn`"
)]
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles at least one message, and returns one result for each, in the same order. Where all messages are handled
    /// in order (on a FIFO queue, and with [`Ordering::Batch`](crate::worker::Ordering::Batch)), results after the
    /// first error do not count, and those messages are redelivered.
    ///
    /// # Errors
    /// An error of the whole call counts for each of its messages. A wrong number of results fails each of them.
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError>;
}

/// Makes a batch handler from an async function or closure.
///
/// ```
/// use dms_worker::worker::batch_handler_fn;
///
/// let handler = batch_handler_fn(|deliveries| async move {
///     println!("{} messages", deliveries.len());
///     Ok(deliveries.iter().map(|_| Ok(())).collect())
/// });
/// ```
pub fn batch_handler_fn<F, Fut>(function: F) -> BatchHandlerFn<F>
where
    F: Fn(Vec<Delivery>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Result<(), HandlerError>>, HandlerError>> + Send,
{
    BatchHandlerFn(function)
}

/// A batch handler made from a function by [`batch_handler_fn`].
#[derive(Clone)]
pub struct BatchHandlerFn<F>(F);

impl<F> fmt::Debug for BatchHandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchHandlerFn")
    }
}

#[async_trait]
impl<F, Fut> BatchHandler for BatchHandlerFn<F>
where
    F: Fn(Vec<Delivery>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Result<(), HandlerError>>, HandlerError>> + Send,
{
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        (self.0)(deliveries).await
    }
}

/// Which messages share a call of a [`BatchHandler`].
///
/// A message that is known to have failed before is called alone, so that a message that makes its call fail
/// cannot do so to the same neighbours again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Batching {
    /// Messages that were consumed together, at most ten. No message waits. The default.
    ///
    /// With [`Ordering::Key`](crate::worker::Ordering::Key), a message that waits for its key is called alone when
    /// its turn comes.
    #[default]
    Consumed,
    /// Messages of several polls, collected until a limit of [`Collect`] is reached.
    ///
    /// They are in no particular order; with [`Ordering::Key`](crate::worker::Ordering::Key) a call has at most one
    /// message of a key. On FIFO queues and with [`Ordering::Batch`](crate::worker::Ordering::Batch), messages are
    /// [`Consumed`](Self::Consumed) instead.
    Collected(Collect),
}

/// The limits of a collected batch. The call starts at the first of them, or at the start of a shutdown.
///
/// It also starts while the lease still leaves the handler its time: the handler timeout if it is set, otherwise twice
/// the p99 of recent calls, and half of the lease before any call.
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::{
///     batch_handler_fn,
///     queue::NewQueue,
///     testing::TestServer,
///     worker::{Batching, Collect, Delivery},
/// };
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders"), "warehouse").await;
///     orders.send(1..=40).await;
///
///     // One INSERT for up to 500 rows: a row waits at most 200 ms for others.
///     let insert = |rows: Vec<Delivery>| async move { Ok(rows.iter().map(|_row| Ok(())).collect()) };
///     let collect = Collect::new().max_messages(500).linger(Duration::from_millis(200));
///     let worker = orders.batch_worker(batch_handler_fn(insert)).batching(Batching::Collected(collect));
///     assert_eq!(orders.run_worker(worker).await.done, 40);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collect {
    /// The maximum number of messages in a call; 100 by default, or the worker's concurrency if that is set and lower.
    ///
    /// Messages that wait for their batch are in flight. So the concurrency must be at least as high, and twice as high
    /// to collect one batch while another is handled; it is, unless it is set.
    pub max_messages: usize,
    /// The maximum bytes of bodies in a call, unless a single message is larger; 4 MiB by default, or the bytes that
    /// may be in flight if that is lower.
    pub max_bytes: usize,
    /// How long the first message of a batch waits for others; 1 s by default, or less where the lease is short.
    pub linger: Duration,
}

impl Default for Collect {
    fn default() -> Self {
        Self { max_messages: 100, max_bytes: 4 * 1024 * 1024, linger: Duration::from_secs(1) }
    }
}

impl Collect {
    /// The defaults: 100 messages, 4 MiB, 1 s.
    pub fn new() -> Self {
        Self::default()
    }

    /// The maximum number of messages in a call. Default: 100.
    pub fn max_messages(mut self, max_messages: usize) -> Self {
        self.max_messages = max_messages;
        self
    }

    /// The maximum bytes of bodies in a call. Default: 4 MiB.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// How long the first message of a batch waits for others. Default: 1 s.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}
