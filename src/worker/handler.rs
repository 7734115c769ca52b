//! What a user implements: a [`Handler`], and what it answers.

use std::{error::Error as StdError, fmt, future::Future, time::Duration};

use async_trait::async_trait;

use super::delivery::Delivery;

/// Handles messages, one at a time, many at once.
///
/// The future is dropped when the message's [deadline](Delivery::deadline) comes; a panic is contained to its message.
///
/// ```
/// # use dms_worker::worker::{Delivery, Handler, HandlerError};
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// struct Billing;
///
/// #[async_trait::async_trait]
/// impl Handler for Billing {
///     async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
///         let order: Order = delivery.json()?; // undecodable: rejected, not retried for ever
///         println!("charging order {}", order.id);
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    note = "implement `Handler`, or wrap an async function of one `Delivery` with `handler_fn`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. `Ok` acknowledges it; the error says what becomes of it otherwise.
    ///
    /// # Errors
    /// Any error converts and means "failed, deliver it again"; [`HandlerError::reject`] and [`HandlerError::defer`] say
    /// something else.
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError>;
}

#[async_trait]
impl<H: Handler + ?Sized> Handler for std::sync::Arc<H> {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        (**self).handle(delivery).await
    }
}

/// Makes a handler of an async function or closure.
///
/// ```
/// # use dms_worker::worker::handler_fn;
/// let handler = handler_fn(|delivery| async move {
///     println!("{}", delivery.body().as_str());
///     Ok(())
/// });
/// ```
pub fn handler_fn<F, Fut>(function: F) -> HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    HandlerFn(function)
}

/// A handler made of a function by [`handler_fn`].
#[derive(Clone)]
pub struct HandlerFn<F>(F);

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerFn")
    }
}

#[async_trait]
impl<F, Fut> Handler for HandlerFn<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        (self.0)(delivery).await
    }
}

/// Why a message was not handled, and what should become of it.
///
/// Every error converts with `?` and means: failed, deliver it again. It does not implement [`std::error::Error`] itself, so
/// that this conversion can exist.
pub struct HandlerError {
    kind: FailureKind,
    source: Box<dyn StdError + Send + Sync>,
}

/// What a handler wants to become of a message it did not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// It failed this time: deliver it again, as [`OnFailure`](super::OnFailure) says.
    Retry,
    /// It can never succeed: [`OnReject`](super::OnReject) says where it goes.
    Reject,
    /// Its body could not be decoded: treated as a reject.
    Undecodable,
    /// Not now: deliver it again after this time. Not counted as a failure where the queue has delays.
    Defer(Duration),
}

impl HandlerError {
    /// Failed this time; the message is delivered again.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Retry, source: reason.into() }
    }

    /// The message can never succeed: it is failed, parked in another queue or discarded, as the worker is set up.
    pub fn reject(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Reject, source: reason.into() }
    }

    /// Not now: the message is delivered again after `delay`, at the earliest.
    ///
    /// On queues with delays a copy is sent with that delay and the original acknowledged. FIFO and Kafka queues cannot do
    /// that, so there the message is failed, and comes again as the service sees fit.
    pub fn defer(delay: Duration) -> Self {
        Self { kind: FailureKind::Defer(delay), source: format!("deferred for {delay:?}").into() }
    }

    pub(crate) fn undecodable(source: serde_json::Error) -> Self {
        Self { kind: FailureKind::Undecodable, source: source.into() }
    }

    /// What should become of the message.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The reason.
    pub fn reason(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FailureKind::Undecodable => write!(f, "the body cannot be decoded: {}", self.source),
            FailureKind::Retry | FailureKind::Reject | FailureKind::Defer(_) => self.source.fmt(f),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("kind", &self.kind).field("source", &self.source).finish()
    }
}
