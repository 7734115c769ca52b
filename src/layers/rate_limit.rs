//! [`RateLimit`]: a limit of calls per time that several workers can share.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError, Rate, TokenBucket};

/// The delay of a message that waited in vain.
const DEFER_DELAY: Duration = Duration::from_secs(1);

/// Limits the calls per time. Further calls wait for at most half of their remaining lease and are then
/// [deferred](HandlerError::defer).
///
/// Clones share the limit. Give one to each worker that uses the same resource. For a single worker
/// [`WorkerBuilder::rate_limit`](crate::worker::WorkerBuilder::rate_limit) is better, because it fetches only messages
/// that may be handled.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::{layers::RateLimit, worker::Rate};
///
/// let mail_server = RateLimit::new(Rate::try_new(50, Duration::from_secs(1))?);
/// let (orders, invoices) = (mail_server.clone(), mail_server); // for WorkerBuilder::layer of two workers
/// # let _ = (orders, invoices);
/// # Ok::<(), dms_worker::limits::LimitError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<TokenBucket>);

impl RateLimit {
    /// A limit of `rate`.
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
            Err(_) => Err(HandlerError::defer(DEFER_DELAY)),
        }
    }
}
