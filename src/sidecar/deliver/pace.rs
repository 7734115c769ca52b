//! [`Paced`]: a handler that takes no more messages in a unit of time than it may.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use crate::{
    config::Rate,
    worker::{Delivery, Handler, HandlerError},
};

/// Calls another handler at a bounded rate, evenly spaced.
pub(crate) struct Paced<H> {
    inner: H,
    gap: Duration,
    next: Mutex<Option<Instant>>,
}

impl<H> Paced<H> {
    /// `inner`, called at most at this rate.
    pub(crate) fn new(inner: H, rate: Rate) -> Self {
        Self { inner, gap: rate.per() / rate.count(), next: Mutex::new(None) }
    }

    /// The next free moment, which is taken by asking.
    fn slot(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.map_or(now, |next| next.max(now));
        *next = Some(slot + self.gap);
        slot
    }
}

#[async_trait]
impl<H: Handler> Handler for Paced<H> {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        sleep_until(self.slot(Instant::now())).await;
        self.inner.handle(delivery).await
    }
}

/// The messages that may be in flight at this rate, so that none of them waits longer than a quarter of its lease.
pub(crate) fn concurrency(wanted: usize, rate: Rate, lease: Duration) -> usize {
    let in_a_quarter = rate.per_second() * lease.as_secs_f64() / 4.0;
    (1..=wanted)
        .rev()
        .find(|count| u32::try_from(*count).is_ok_and(|count| f64::from(count) <= in_a_quarter))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slots_are_evenly_spaced_and_unused_ones_are_gone() {
        let paced = Paced::new((), "4/s".parse().unwrap());
        let start = Instant::now();
        let slots: Vec<_> = (0..3).map(|_| (paced.slot(start) - start).as_millis()).collect();
        assert_eq!(slots, [0, 250, 500]);
        let later = start + Duration::from_secs(10);
        assert_eq!(paced.slot(later), later);
    }

    #[test]
    fn what_is_in_flight_can_start_within_its_lease() {
        let lease = Duration::from_secs(30);
        assert_eq!(concurrency(32, "200/s".parse().unwrap(), lease), 32);
        assert_eq!(concurrency(32, "1/s".parse().unwrap(), lease), 7);
        assert_eq!(concurrency(32, "1/h".parse().unwrap(), lease), 1);
    }
}
