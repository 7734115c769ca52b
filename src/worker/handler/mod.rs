//! [`Handler`]: what a user implements to handle messages.

pub(crate) mod batch;
pub(crate) mod delivery;
pub(crate) mod delivery_builder;
pub(crate) mod error;
pub mod extract;
pub(crate) mod function;
pub(crate) mod kind;
pub(crate) mod needed;
pub(crate) mod outcome;
pub(crate) mod service;

use std::{fmt, future::Future, marker::PhantomData};

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::worker::handler::{delivery::Delivery, error::HandlerError};

/// Handles messages, one per call, many concurrently.
///
/// The future is dropped at the [deadline](Delivery::deadline) of the message. A panic fails its message only.
///
/// ```
/// use dms_worker::worker::{Delivery, Handler, HandlerError};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
///
/// struct Billing;
///
/// #[async_trait::async_trait]
/// impl Handler for Billing {
///     async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
///         let order: Order = delivery.json()?; // an undecodable body is rejected, not retried endlessly
///         println!("charging order {}", order.id);
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    note = "implement `Handler`, or wrap an async function with `handler_fn`"
)]
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. `Ok` acknowledges it; an error says what should become of it.
    ///
    /// # Errors
    /// Any error converts, and means that the message failed and is to be redelivered. [`HandlerError::reject`],
    /// [`HandlerError::defer`] and [`HandlerError::release`] mean something else.
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError>;
}

#[async_trait]
impl<H: Handler + ?Sized> Handler for std::sync::Arc<H> {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        (**self).handle(delivery).await
    }
}

/// Makes a handler from an async function of the decoded body and the delivery, which has the attributes, the deadline
/// and the attempt. A body that cannot be decoded does not reach the function; see
/// [`OnUndecodable`](crate::worker::OnUndecodable).
///
/// The closure captures state that its calls share, in an `Arc`.
///
/// ```
/// use dms_worker::worker::{Delivery, typed_handler_fn};
///
/// #[derive(serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
///
/// let handler = typed_handler_fn(|order: Order, delivery: Delivery| async move {
///     println!("order {}, {:?} left", order.id, delivery.remaining());
///     Ok(())
/// });
/// ```
pub fn typed_handler_fn<T, F, Fut>(function: F) -> TypedHandlerFn<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    TypedHandlerFn { function, body: PhantomData }
}

/// A handler made from a function by [`typed_handler_fn`].
pub struct TypedHandlerFn<T, F> {
    function: F,
    body: PhantomData<fn() -> T>,
}

impl<T, F> fmt::Debug for TypedHandlerFn<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedHandlerFn")
    }
}

#[async_trait]
impl<T, F, Fut> Handler for TypedHandlerFn<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        (self.function)(delivery.json()?, delivery).await
    }
}
