//! What a user implements: a [`Handler`].

use std::{fmt, future::Future};

use async_trait::async_trait;

use super::{delivery::Delivery, error::HandlerError};

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
