//! [`Retry`]: retries within the lease.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tower::Layer;

use super::around::{Around, AroundService};
use crate::{
    retry::RetryPolicy,
    text::brief,
    worker::{Delivery, DeliveryService, FailureKind, HandlerError},
};

/// Calls the handler again after a failure, within the lease, for errors that last a moment. Saves a redelivery.
///
/// [`Delivery::retry`] tells the handler the number of the retry. A retry starts only if its delay and the duration of
/// the longest try so far fit into the remaining lease, and the worker is not shutting down. Otherwise the last error
/// goes to [`OnFailure`](crate::worker::OnFailure), for which all tries were one attempt. Rejects, deferrals and panics
/// are not retried.
///
/// ```
/// use std::time::Duration;
/// use dms_worker::{RetryPolicy, layers::Retry};
///
/// let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
/// let layer = Retry::new(RetryPolicy::try_new(first, longest, 2.0, 0.5)?.max_attempts(5)); // for WorkerBuilder::layer
/// # let _ = layer;
/// # Ok::<(), dms_worker::retry::InvalidRetryPolicy>(())
/// ```
#[derive(Clone, Debug)]
pub struct Retry(RetryPolicy);

impl Retry {
    /// Retries by `policy`. If it has no maximum of tries, the lease bounds them.
    pub fn new(policy: RetryPolicy) -> Self {
        Self(policy)
    }
}

impl<S> Layer<S> for Retry {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(self.clone()))
    }
}

impl Around for Retry {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        let mut schedule = self.0.schedule();
        let mut longest = Duration::ZERO;
        let mut retry = delivery.retry();
        let mut service = inner;
        loop {
            let (next, began) = (service.clone(), Instant::now());
            let Err(error) = service.deliver(delivery.clone().retried(retry)).await else { return Ok(()) };
            longest = longest.max(began.elapsed());
            let pause = match error.kind() {
                FailureKind::Retry if !delivery.is_shutting_down() => schedule.next_delay(),
                _ => None,
            };
            let Some(pause) = pause.filter(|pause| pause.saturating_add(longest) < delivery.remaining()) else {
                return Err(error);
            };
            tracing::debug!(queue = delivery.queue(), retry, %error, pause = %brief(pause), "the handler failed: it is called again");
            sleep(pause).await;
            (service, retry) = (next, retry.saturating_add(1));
        }
    }
}
