//! What can go wrong with a delivery, on purpose: to prove in a test that a handler is idempotent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::sleep;
use tower::Layer;

use super::around::{Around, AroundService};
use crate::worker::{Delivery, DeliveryService, HandlerError};

/// Makes deliveries fail before the handler, fail after it has succeeded, come twice, and come late; all from one seed.
///
/// A handler that is idempotent leaves the same behind as without it. All shares are 0 until they are set. Under
/// a paused clock and with a single thread, the same seed does the same again.
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

/// A failure that [`Chaos`] made.
#[derive(Debug, thiserror::Error)]
#[error("made by chaos: {0}")]
struct Made(&'static str);

/// What happens to one delivery.
#[derive(Debug)]
struct Fate {
    delay: Duration,
    fails: bool,
    twice: bool,
    lost: bool,
}

impl Chaos {
    /// Does nothing until something is switched on.
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

    /// This share (0 to 1) fails without the handler being called.
    pub fn failures(mut self, share: f64) -> Self {
        self.failures = share;
        self
    }

    /// This share (0 to 1) fails although the handler has succeeded, as when an acknowledgement is lost: it comes again.
    pub fn lost_successes(mut self, share: f64) -> Self {
        self.lost_successes = share;
        self
    }

    /// For this share (0 to 1) the handler is called a second time after it has succeeded.
    pub fn duplicates(mut self, share: f64) -> Self {
        self.duplicates = share;
        self
    }

    /// This share (0 to 1) waits for up to `longest` before the handler is called, for half of what is left of its lease at most.
    pub fn delays(mut self, share: f64, longest: Duration) -> Self {
        (self.delays, self.longest) = (share, longest);
        self
    }

    fn fate(&self) -> Fate {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        // Each is drawn every time, so that switching one on leaves the others as they were.
        let (late, part) = (random.f64() < self.delays, random.f64());
        Fate {
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
        let Fate { delay, fails, twice, lost } = self.fate();
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
