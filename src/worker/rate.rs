//! A limit on how many messages are taken per time, on tokio's clock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::limits::LimitError;

/// So many messages per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// `messages` per `per`, with bursts of what falls into a second, or one message.
    ///
    /// # Errors
    /// When there are none, more than a million per second, or fewer than one a day.
    pub fn try_new(messages: u32, per: Duration) -> Result<Self, LimitError> {
        let refuse = || LimitError {
            what: "rate limit",
            value: format!("{messages} messages per {per:?}"),
            allowed: "from one message a day to a million a second are allowed".to_owned(),
        };
        let interval = per.checked_div(messages).ok_or_else(refuse)?;
        if interval < Duration::from_micros(1) || interval > Duration::from_secs(86_400) {
            return Err(refuse());
        }
        let burst = Duration::from_secs(1).as_nanos() / interval.as_nanos().max(1);
        Ok(Self { interval, burst: u32::try_from(burst).unwrap_or(u32::MAX).max(1) })
    }
}

/// Gives out places at a [`Rate`], or without a limit.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bucket: Mutex<Bucket>,
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    rate: Option<Rate>,
    /// When it will be full again if nothing more is taken.
    full_at: Instant,
}

impl RateLimit {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { bucket: Mutex::new(Bucket { rate, full_at: Instant::now() }), changed: Notify::new() }
    }

    /// Changes the rate. A new one begins with nothing to give, so that changing it often gives no more.
    pub(crate) fn set(&self, rate: Option<Rate>) {
        let full_at = Instant::now() + rate.map_or(Duration::ZERO, |rate| rate.interval * rate.burst);
        *self.lock() = Bucket { rate, full_at };
        self.changed.notify_waiters();
    }

    /// Waits for a first place and takes up to `want`. Cancel-safe.
    pub(crate) async fn take(&self, want: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = match self.lock().try_take(want, Instant::now()) {
                Ok(taken) => return taken,
                Err(next) => next,
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = changed => {}
            }
        }
    }

    /// Gives back places that were not used.
    pub(crate) fn give_back(&self, unused: usize) {
        let unused = u32::try_from(unused).unwrap_or(u32::MAX);
        let mut bucket = self.lock();
        if let Some(Rate { interval, .. }) = bucket.rate {
            bucket.full_at = bucket.full_at.checked_sub(interval * unused).unwrap_or(bucket.full_at);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        // No code that can panic runs under this lock.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn try_take(&mut self, want: usize, now: Instant) -> Result<usize, Instant> {
        let Some(Rate { interval, burst }) = self.rate else { return Ok(want) };
        let begin = self.full_at.max(now);
        let used = (begin - now).as_nanos().div_ceil(interval.as_nanos());
        let free = u128::from(burst).saturating_sub(used);
        if free == 0 {
            return Err(begin - interval * (burst - 1));
        }
        let taken = free.min(want as u128);
        self.full_at = begin + interval * u32::try_from(taken).unwrap_or(u32::MAX);
        Ok(usize::try_from(taken).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn taken_in(limit: &RateLimit, time: Duration) -> usize {
        let until = Instant::now() + time;
        let mut taken = 0;
        while let Ok(more) = tokio::time::timeout_at(until, limit.take(10)).await {
            taken += more;
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_holds_over_time_after_the_first_burst() {
        let limit = RateLimit::new(Some(Rate::try_new(20, Duration::from_secs(1)).unwrap()));
        let taken = taken_in(&limit, Duration::from_secs(10)).await;
        assert!((200..=220).contains(&taken), "{taken} in ten seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_rate_lets_single_messages_through() {
        let limit = RateLimit::new(Some(Rate::try_new(6, Duration::from_secs(60)).unwrap()));
        assert_eq!(limit.take(10).await, 1);
        let began = Instant::now();
        assert_eq!(limit.take(10).await, 1);
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let limit = RateLimit::new(Some(Rate::try_new(5, Duration::from_secs(1)).unwrap()));
        assert_eq!(limit.take(5).await, 5);
        limit.give_back(4);
        let began = Instant::now();
        assert_eq!(limit.take(10).await, 4);
        assert!(began.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_can_change_while_somebody_waits() {
        let second = Duration::from_secs(1);
        let limit = RateLimit::new(Some(Rate::try_new(1, second * 3600).unwrap()));
        assert_eq!(limit.take(10).await, 1);
        let waiting = limit.take(10);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        limit.set(Some(Rate::try_new(10, second).unwrap()));
        let began = Instant::now();
        assert_eq!(waiting.await, 1);
        assert_eq!(began.elapsed(), second / 10, "a new rate gives no burst");
        limit.set(None);
        assert_eq!(limit.take(10).await, 10);
    }

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        let second = Duration::from_secs(1);
        for (messages, per) in [(0, second), (2_000_000, second), (1, second * 90_000), (1, Duration::ZERO)] {
            assert!(Rate::try_new(messages, per).is_err(), "{messages} per {per:?}");
        }
    }
}
