//! What a user implements to handle several messages in one call: a [`BatchHandler`], and how its batches are made up.

use std::{fmt, future::Future, time::Duration};

use async_trait::async_trait;

use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// Handles several messages in one call, and answers for each of them: for bulk inserts, bulk requests, one transaction.
///
/// Everything that holds for a [`Handler`](crate::worker::Handler) holds for each message: its verdict goes through the failure policy
/// and into the one acknowledgement of the batch that it was consumed with. [`Batching`] says which messages share a call.
///
/// The future is dropped when the first of its messages reaches its [deadline](Delivery::deadline). Then, and when it panics,
/// none of its messages is done.
///
/// ```
/// # use dms_worker::worker::{BatchHandler, Delivery, HandlerError};
/// struct Archive;
///
/// #[async_trait::async_trait]
/// impl BatchHandler for Archive {
///     async fn handle_batch(
///         &self,
///         deliveries: Vec<Delivery>,
///     ) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
///         let rows: Vec<Result<u64, HandlerError>> = deliveries.iter().map(Delivery::json).collect();
///         // One insert of all the rows that could be decoded goes here; `?` on its error fails the whole call.
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
    /// Handles messages, never none, and answers one verdict for each, in their order. Where an order of all messages is asked
    /// for (a FIFO queue, [`Ordering::Batch`](crate::worker::Ordering::Batch)), verdicts behind the first that is no success do not
    /// count: those messages come again.
    ///
    /// # Errors
    /// An error of the whole call counts for each of its messages. So does a wrong number of verdicts, as a failure.
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError>;
}

/// Makes a batch handler of an async function or closure.
///
/// ```
/// # use dms_worker::worker::batch_handler_fn;
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

/// A batch handler made of a function by [`batch_handler_fn`].
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
/// A message that failed before, as far as the worker knows, has a call to itself: one that brings its call down must not do so
/// to the same neighbours again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Batching {
    /// Those that were consumed together: up to ten, nobody waits. The default.
    ///
    /// With [`Ordering::Key`](crate::worker::Ordering::Key), a message that waits for its lane is called by itself when its turn comes.
    #[default]
    Consumed,
    /// Those that arrive until there are enough, across polls.
    ///
    /// In no order of arrival; with [`Ordering::Key`](crate::worker::Ordering::Key) at most one message of a key. FIFO queues and
    /// [`Ordering::Batch`](crate::worker::Ordering::Batch) go by [`Consumed`](Self::Consumed) whatever is set.
    Collected(Collect),
}

/// When a collected batch is complete: at the first of these limits, at the start of a shutdown, or when holding its oldest
/// message for longer would leave its handler less than the lease allows: the handler's timeout where there is one,
/// else twice the p99 of its recent calls, and half of the lease before anything is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collect {
    /// The most messages in a call; 100 by default. What waits for its batch is in flight: the worker's concurrency must be
    /// as large, and twice as large where one batch is to be collected while another is handled; where the concurrency is not set, it is. The
    /// default is never above a concurrency that is set.
    pub max_messages: usize,
    /// The most bytes of bodies in a call, a single larger message excepted; 4 MiB by default, or the bytes that may be in flight.
    pub max_bytes: usize,
    /// How long the first message of a batch waits for others; 1 s by default, or half of what the lease leaves.
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

    /// The most messages in a call; 100 by default.
    pub fn max_messages(mut self, max_messages: usize) -> Self {
        self.max_messages = max_messages;
        self
    }

    /// The most bytes of bodies in a call; 4 MiB by default.
    pub fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// How long the first message of a batch waits for others; 1 s by default.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }
}
