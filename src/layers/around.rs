//! What the layers of this module have in common: something done [around](Around) a call, as a `tower` layer.

use std::{
    future::Future,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use crate::worker::{Delivery, DeliveryService, HandlerError, HandlerFuture};

/// Something that is done around a call: before it, after it, or instead of it.
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
    /// Handles a delivery with the help of `inner`, which is ready; a clone of it is not yet.
    ///
    /// The future is dropped when the delivery's deadline comes.
    fn around(
        self: Arc<Self>,
        delivery: Delivery,
        inner: impl DeliveryService,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The layer that does it.
    fn into_layer(self) -> AroundLayer<Self> {
        AroundLayer(Arc::new(self))
    }
}

/// The layer of an [`Around`].
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

/// A service with something done around its calls. Ready when the inner one is.
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
        // The one that is ready is used; its clone has to become so.
        let fresh = self.inner.clone();
        let ready = mem::replace(&mut self.inner, fresh);
        Box::pin(self.around.clone().around(delivery, ready))
    }
}
