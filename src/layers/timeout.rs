//! A bound on the time of a call: its own, or the lease where that ends sooner.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError};

/// Ends a call that takes longer than this, or than its lease; it counts as failed, and a [`Retry`](super::Retry) around this
/// layer tries again.
///
/// [`WorkerBuilder::handler_timeout`](crate::worker::WorkerBuilder::handler_timeout) bounds everything that is done for a message,
/// its retries included; this layer bounds what is inside it.
#[derive(Clone, Copy, Debug)]
pub struct Timeout(Duration);

#[derive(Debug, thiserror::Error)]
#[error("the call took longer than its limit of {0:?}")]
struct TookTooLong(Duration);

impl Timeout {
    /// Bounds each call to `limit`.
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

impl<S> Layer<S> for Timeout {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(*self))
    }
}

impl Around for Timeout {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        let limit = self.0.min(delivery.remaining());
        let until = Instant::now() + limit;
        match timeout_at(until, inner.deliver(delivery)).await {
            Ok(answer) => answer,
            Err(_) => Err(TookTooLong(limit).into()),
        }
    }
}
