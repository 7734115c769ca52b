//! A limit on calls per time that several workers can share.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError, Rate, TokenBucket};

/// How long a message that found no place is put off.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Lets so many calls through per time; the others wait, for half of what is left of their lease at most, and are then
/// [deferred](HandlerError::defer).
///
/// Clones share the limit: give one to every worker that uses the same resource. For a single worker
/// [`WorkerBuilder::rate_limit`](crate::worker::WorkerBuilder::rate_limit) is better: it fetches no more than it may handle.
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<TokenBucket>);

impl RateLimit {
    /// Limits calls to `rate`.
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(TokenBucket::new(Some(rate))))
    }
}

impl<S> Layer<S> for RateLimit {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(self.clone()))
    }
}

impl Around for RateLimit {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        match timeout(delivery.remaining() / 2, self.0.take(1)).await {
            Ok(_) => inner.deliver(delivery).await,
            Err(_) => Err(HandlerError::defer(PUT_OFF)),
        }
    }
}
