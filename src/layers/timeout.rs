//! [`Timeout`]: a timeout for each call, bounded by the lease.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tower::Layer;

use super::around::{Around, AroundService};
use crate::{
    text::brief,
    worker::{Delivery, DeliveryService, HandlerError},
};

/// Stops a call at its timeout or at the end of its lease. The call has then failed, and a [`Retry`](super::Retry)
/// around this layer tries again.
///
/// [`WorkerBuilder::handler_timeout`](crate::worker::WorkerBuilder::handler_timeout) bounds all the work for a message,
/// with its retries; this layer bounds the layers inside it.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::layers::Timeout;
///
/// let layer = Timeout::new(Duration::from_secs(2)); // for WorkerBuilder::layer
/// # let _ = layer;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout(Duration);

#[derive(Debug, thiserror::Error)]
#[error("the call took longer than its limit of {}", brief(*.0))]
struct TookTooLong(Duration);

impl Timeout {
    /// A timeout of `limit` for each call.
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
            Err(_) => Err(HandlerError::timed_out(TookTooLong(limit))),
        }
    }
}
