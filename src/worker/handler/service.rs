//! `tower` services as handlers, and handlers as services, which layers wrap.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use async_trait::async_trait;
use tower::Service;

use crate::worker::handler::{Handler, delivery::Delivery, error::HandlerError};

/// A `tower` service for deliveries: `Service<Delivery, Response = ()>` whose error converts into a boxed error.
/// Implemented for every such type.
///
/// [`HandlerError`]s keep their meaning (reject, defer, release) when layers of `tower` box them. Any other error means
/// that the message failed and is to be redelivered.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service of deliveries",
    note = "needed is `tower::Service<Delivery, Response = ()> + Clone + Send + 'static` with `Future: Send` and an `Error` that \
            converts into `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait DeliveryService:
    Service<Delivery, Response = (), Error: Into<Box<dyn StdError + Send + Sync>>, Future: Send> + Clone + Send + 'static
{
    /// Waits until the service is ready, and calls it.
    ///
    /// # Errors
    /// Returns the error of the service.
    fn deliver(mut self, delivery: Delivery) -> impl Future<Output = Result<(), HandlerError>> + Send {
        async move {
            poll_fn(|context| self.poll_ready(context)).await.map_err(HandlerError::from_boxed)?;
            self.call(delivery).await.map_err(HandlerError::from_boxed)
        }
    }
}

impl<S> DeliveryService for S where
    S: Service<Delivery, Response = (), Error: Into<Box<dyn StdError + Send + Sync>>, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// A service as a handler. Each delivery gets a clone of the service, and waits until the clone is ready.
///
/// ```
/// use std::convert::Infallible;
///
/// use dms_worker::worker::{Delivery, ServiceHandler};
///
/// let handler = ServiceHandler::new(tower::service_fn(|delivery: Delivery| async move {
///     Ok::<(), Infallible>(println!("{}", delivery.body().as_str()))
/// }));
/// ```
pub struct ServiceHandler<S>(Mutex<S>);

impl<S: DeliveryService> ServiceHandler<S> {
    /// Wraps a service.
    pub fn new(service: S) -> Self {
        Self(Mutex::new(service))
    }
}

impl<S> fmt::Debug for ServiceHandler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceHandler")
    }
}

#[async_trait]
impl<S: DeliveryService> Handler for ServiceHandler<S> {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let service = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        service.deliver(delivery).await
    }
}

/// The future of a [`HandlerService`].
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<(), HandlerError>> + Send>>;

/// A handler as a service, which is always ready. [`WorkerBuilder::layer`](crate::worker::WorkerBuilder::layer) passes
/// it to a layer.
#[derive(Clone)]
pub struct HandlerService(Arc<dyn Handler>);

impl HandlerService {
    /// Wraps a handler.
    pub fn new(handler: impl Handler) -> Self {
        Self(Arc::new(handler))
    }

    pub(crate) fn shared(handler: Arc<dyn Handler>) -> Self {
        Self(handler)
    }
}

impl fmt::Debug for HandlerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerService")
    }
}

impl Service<Delivery> for HandlerService {
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> HandlerFuture {
        let handler = self.0.clone();
        Box::pin(async move { handler.handle(delivery).await })
    }
}
