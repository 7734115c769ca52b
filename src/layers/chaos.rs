//! [`Chaos`]: failures on purpose, to test that a handler is idempotent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError};

/// Fails deliveries before the handler, fails them after its success, duplicates them and delays them, at random from a
/// seed.
///
/// An idempotent handler has the same effects with it as without. All shares are 0 by default. With a paused clock and
/// a single thread, equal seeds have equal results.
///
/// ```
/// # use std::time::Duration;
/// # use dms_worker::layers::Chaos;
/// let layer = Chaos::new(7).failures(0.1).lost_successes(0.1).duplicates(0.1).delays(0.2, Duration::from_secs(5));
/// # let _ = layer;
/// ```
#[derive(Clone, Debug)]
pub struct Chaos {
    random: Arc<Mutex<fastrand::Rng>>,
    failures: f64,
    lost_successes: f64,
    duplicates: f64,
    delays: f64,
    longest: Duration,
}

/// An error from [`Chaos`].
#[derive(Debug, thiserror::Error)]
#[error("made by chaos: {0}")]
struct Made(&'static str);

/// The treatment of one delivery.
#[derive(Debug)]
struct Faults {
    delay: Duration,
    fails: bool,
    twice: bool,
    lost: bool,
}

impl Chaos {
    /// A layer that does nothing until a share is set.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            failures: 0.0,
            lost_successes: 0.0,
            duplicates: 0.0,
            delays: 0.0,
            longest: Duration::ZERO,
        }
    }

    /// The share (0 to 1) of deliveries that fail without a call of the handler; 0 by default.
    pub fn failures(mut self, share: f64) -> Self {
        self.failures = share;
        self
    }

    /// The share (0 to 1) of deliveries that fail after the handler's success, as with a lost acknowledgement, and are
    /// redelivered; 0 by default.
    pub fn lost_successes(mut self, share: f64) -> Self {
        self.lost_successes = share;
        self
    }

    /// The share (0 to 1) of deliveries for which the handler is called twice; 0 by default.
    pub fn duplicates(mut self, share: f64) -> Self {
        self.duplicates = share;
        self
    }

    /// The share (0 to 1) of deliveries that wait before the call, up to `longest` and up to half of the remaining
    /// lease; 0 by default.
    pub fn delays(mut self, share: f64, longest: Duration) -> Self {
        (self.delays, self.longest) = (share, longest);
        self
    }

    fn draw(&self) -> Faults {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        // Each number is drawn every time, so that one share does not change the effects of another.
        let (late, part) = (random.f64() < self.delays, random.f64());
        Faults {
            delay: if late { self.longest.mul_f64(part) } else { Duration::ZERO },
            fails: random.f64() < self.failures,
            twice: random.f64() < self.duplicates,
            lost: random.f64() < self.lost_successes,
        }
    }
}

impl<S> Layer<S> for Chaos {
    type Service = AroundService<S, Self>;

    fn layer(&self, inner: S) -> AroundService<S, Self> {
        AroundService::new(inner, Arc::new(self.clone()))
    }
}

impl Around for Chaos {
    async fn around(self: Arc<Self>, delivery: Delivery, inner: impl DeliveryService) -> Result<(), HandlerError> {
        let Faults { delay, fails, twice, lost } = self.draw();
        sleep(delay.min(delivery.remaining() / 2)).await;
        if fails {
            return Err(Made("the delivery fails before the handler").into());
        }
        let again = inner.clone();
        inner.deliver(delivery.clone()).await?;
        if twice {
            again.deliver(delivery).await?;
        }
        if lost { Err(Made("the handler's success is lost").into()) } else { Ok(()) }
    }
}
