//! What a user implements: a [`Handler`].

pub(crate) mod batch;
pub(crate) mod delivery;
pub(crate) mod delivery_builder;
pub(crate) mod error;
pub(crate) mod kind;
pub(crate) mod outcome;
pub(crate) mod service;

use std::{fmt, future::Future, marker::PhantomData};

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::worker::handler::{delivery::Delivery, error::HandlerError};

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

/// Makes a handler of an async function that takes the decoded body, and the delivery beside it for all the rest: attributes,
/// deadline, attempt. A body that cannot be decoded never reaches it; see [`OnUndecodable`](crate::worker::OnUndecodable).
///
/// State that handlers share is captured by the closure, in an `Arc`.
///
/// ```
/// # use dms_worker::worker::{Delivery, typed_handler_fn};
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// let handler = typed_handler_fn(|order: Order, delivery: Delivery| async move {
///     println!("order {}, {:?} left", order.id, delivery.remaining());
///     Ok(())
/// });
/// # let _: &dyn dms_worker::worker::Handler = &handler;
/// ```
pub fn typed_handler_fn<T, F, Fut>(function: F) -> TypedHandlerFn<T, F>
where
    T: DeserializeOwned + Send + 'static,
    F: Fn(T, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    TypedHandlerFn { function, body: PhantomData }
}

/// A handler made of a function by [`typed_handler_fn`].
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
