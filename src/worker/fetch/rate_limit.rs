//! [`Rate`] and [`TokenBucket`]: a limit on the number of messages over time, on tokio's clock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::limits::LimitError;

/// A number of messages over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// A rate of `messages` over `per`. A burst has the messages of one second, or one message if the rate is lower.
    ///
    /// # Errors
    /// If the rate is zero, more than a million messages a second, or less than one a day.
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

/// Tokens that were taken. Those that are not used go back with [`TokenBucket::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "they count as used"]
pub(crate) struct Tokens {
    pub(crate) count: usize,
    /// The number of the rate under which they were taken. Tokens do not go back to another rate.
    era: u64,
}

impl Tokens {
    /// Splits off `used` tokens from the rest.
    pub(crate) fn split(self, used: usize) -> (Self, Self) {
        let used = self.count.min(used);
        (Self { count: used, ..self }, Self { count: self.count - used, ..self })
    }
}

/// A bucket that hands out tokens at a [`Rate`], or without a limit.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    bucket: Mutex<BucketState>,
    changed: Notify,
}

#[derive(Debug)]
struct BucketState {
    rate: Option<Rate>,
    /// When the bucket will be full again if nothing more is taken.
    full_at: Instant,
    /// How often the rate has changed.
    era: u64,
}

impl TokenBucket {
    pub(crate) fn new(rate: Option<Rate>) -> Self {
        Self { bucket: Mutex::new(BucketState { rate, full_at: Instant::now(), era: 0 }), changed: Notify::new() }
    }

    /// Changes the rate, and wakes all that wait. A new rate starts with an empty bucket, because otherwise each change
    /// would give another burst. Tokens that were taken before do not go back to it.
    pub(crate) fn set(&self, rate: Option<Rate>) {
        let full_at = Instant::now() + rate.map_or(Duration::ZERO, |rate| rate.interval * rate.burst);
        {
            let mut bucket = self.lock();
            if bucket.rate == rate {
                return;
            }
            *bucket = BucketState { rate, full_at, era: bucket.era + 1 };
        }
        self.changed.notify_waiters();
    }

    /// Waits for a first token and takes up to `want`. Cancel-safe.
    pub(crate) async fn take(&self, want: usize) -> Tokens {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that a new rate or a token that comes back between the two is not missed.
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

    /// Whether the tokens were taken under the current rate.
    pub(crate) fn allows(&self, tokens: Tokens) -> bool {
        self.lock().era == tokens.era
    }

    /// Gives unused tokens back to the waiting polls. Tokens of an earlier rate are dropped.
    pub(crate) fn give_back(&self, unused: Tokens) {
        let count = u32::try_from(unused.count).unwrap_or(u32::MAX);
        if count > 0 && self.lock().give_back(count, unused.era) {
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BucketState> {
        // No code that can panic runs under this lock.
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BucketState {
    /// Returns whether a waiting task may now find a token.
    fn give_back(&mut self, count: u32, era: u64) -> bool {
        let Some(Rate { interval, .. }) = self.rate.filter(|_| era == self.era) else { return false };
        self.full_at = self.full_at.checked_sub(interval.saturating_mul(count)).unwrap_or(self.full_at);
        true
    }

    fn try_take(&mut self, want: usize, now: Instant) -> Result<Tokens, Instant> {
        let era = self.era;
        let Some(Rate { interval, burst }) = self.rate else { return Ok(Tokens { count: want, era }) };
        // A bucket that has been full since the past holds one burst, and not what it would have collected since.
        let begin = self.full_at.max(now);
        let used = (begin - now).as_nanos().div_ceil(interval.as_nanos());
        let free = u128::from(burst).saturating_sub(used);
        if free == 0 {
            return Err(begin - interval * (burst - 1));
        }
        let taken = free.min(want as u128);
        self.full_at = begin + interval * u32::try_from(taken).unwrap_or(u32::MAX);
        Ok(Tokens { count: usize::try_from(taken).unwrap_or(usize::MAX), era })
    }
}

#[cfg(test)]
mod tests;
