//! [`Around`]: a `tower` layer written as one async method. All layers of this module use it.

use std::{
    future::Future,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use crate::worker::{Delivery, DeliveryService, HandlerError, HandlerFuture};

/// A layer that does something before a call, after it, or instead of it.
///
/// ```
/// # use std::sync::Arc;
/// # use dms_worker::{layers::Around, worker::{Delivery, DeliveryService, HandlerError}};
/// struct Log;
///
/// impl Around for Log {
///     async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
///         let answer = inner.deliver(delivery.clone()).await;
///         println!("{} handled: {}", delivery.queue(), answer.is_ok());
///         answer
///     }
/// }
/// // for WorkerBuilder::layer
/// let layer = Log.into_layer();
/// # let _ = layer;
/// ```
pub trait Around: Send + Sync + Sized + 'static {
    /// Handles a delivery. `inner` is the next service and is ready; a clone of it has to become ready first.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at the delivery's deadline.
    fn around(
        self: Arc<Self>,
        delivery: Delivery,
        inner: impl DeliveryService,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// Makes the `tower` layer.
    fn into_layer(self) -> AroundLayer<Self> {
        AroundLayer(Arc::new(self))
    }
}

/// The `tower` layer of an [`Around`].
#[derive(Debug)]
pub struct AroundLayer<A>(Arc<A>);

impl<A> Clone for AroundLayer<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S, A: Around> Layer<S> for AroundLayer<A> {
    type Service = AroundService<S, A>;

    fn layer(&self, inner: S) -> AroundService<S, A> {
        AroundService::new(inner, self.0.clone())
    }
}

/// The service of an [`AroundLayer`]. It is ready when the inner service is.
#[derive(Debug)]
pub struct AroundService<S, A> {
    inner: S,
    around: Arc<A>,
}

impl<S, A> AroundService<S, A> {
    pub(crate) fn new(inner: S, around: Arc<A>) -> Self {
        Self { inner, around }
    }
}

impl<S: Clone, A> Clone for AroundService<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), around: self.around.clone() }
    }
}

impl<S: DeliveryService, A: Around> Service<Delivery> for AroundService<S, A> {
    type Response = ();
    type Error = HandlerError;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.inner.poll_ready(context).map_err(HandlerError::from_boxed)
    }

    fn call(&mut self, delivery: Delivery) -> HandlerFuture {
        // The ready service is used for this call, because its clone is not ready yet.
        let fresh = self.inner.clone();
        let ready = mem::replace(&mut self.inner, fresh);
        Box::pin(self.around.clone().around(delivery, ready))
    }
}
