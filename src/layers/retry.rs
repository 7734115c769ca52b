//! Retries within the lease, with backoff.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tower::Layer;

use super::around::{Around, AroundService};
use crate::{
    retry::RetryPolicy,
    worker::{Delivery, DeliveryService, FailureKind, HandlerError},
};

/// Calls again what failed, while the lease lasts: for errors that are over in a moment, without a redelivery.
///
/// The handler sees which retry it is ([`Delivery::retry`]). A retry is not begun when the pause before it, and as long as the
/// longest try took so far, do not fit into what is left of the lease, nor once the worker is shutting down: then the last
/// error goes on to [`OnFailure`](crate::worker::OnFailure), for which all of it was one attempt. Rejects, deferrals and panics are
/// not retried.
#[derive(Clone, Debug)]
pub struct Retry(RetryPolicy);

impl Retry {
    /// Tries as often, and waits as long between tries, as the policy says; without a bound on the tries, as long as the lease lasts.
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
            tracing::debug!(queue = delivery.queue(), retry, %error, ?pause, "the handler failed: it is called again");
            sleep(pause).await;
            (service, retry) = (next, retry.saturating_add(1));
        }
    }
}
