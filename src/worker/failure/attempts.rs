//! [`AttemptCounts`]: how often messages have failed in this worker, for services that do not count it, such as ROMA
//! Connect MQS, and for the worker's own limit of attempts.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    clock,
    message::ReceivedMessage,
    ttl_map::TtlMap,
    worker::dedup::identity::{CAPACITY, Identity, UniqueKey},
};

/// How long a failed message is remembered after its last failure.
const FAILED_TTL: Duration = Duration::from_secs(3600);
/// The pause before a message is redelivered for the first time; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, as long as the longest lease.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The failed attempts of a worker's messages.
///
/// A message is identified by its place or its unique key, and otherwise by its body. Two messages with equal bodies
/// then share one count. This only makes them reach the limit sooner, and it keeps a poison message from circulating
/// endlessly on a service that tells nothing about messages.
#[derive(Debug)]
pub(crate) struct AttemptCounts {
    counts: Mutex<TtlMap<Identity, Failures>>,
    /// Whether anything was ever counted. Until then no message has to be looked up.
    any: AtomicBool,
    unique_key: Option<UniqueKey>,
    /// The attempts after which a message is given up; `None` for no limit.
    max: Option<u32>,
    /// Whether failures are counted at all.
    counts_failures: bool,
    /// Whether each failure delays the redelivery, because the service would redeliver the message at once, without end.
    pauses: bool,
}

/// The failures of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failures {
    count: u32,
    first: Option<Timestamp>,
    /// Whether the handler did not return from the last attempt.
    stuck: bool,
}

/// A failure as it was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Whether it was the last attempt.
    pub(crate) is_last: bool,
    /// How long to wait before it is reported.
    pub(crate) pause: Option<Duration>,
}

impl AttemptCounts {
    /// Empty counts with a limit, for messages with this unique key. With `pauses`, redeliveries are delayed.
    pub(crate) fn new(max: Option<u32>, unique_key: Option<UniqueKey>, pauses: bool) -> Self {
        let counts_failures = max.is_some() || pauses;
        let counts = Mutex::new(TtlMap::new(CAPACITY));
        Self { counts, any: AtomicBool::new(false), unique_key, max, counts_failures, pauses }
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, message: &ReceivedMessage) -> Counted {
        if !self.counts_failures {
            return Counted { is_last: false, pause: None };
        }
        let failed = self.count_failure(message, false);
        let pause = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failed.saturating_sub(1))).min(MAX_PAUSE);
        Counted { is_last: self.is_limit(failed), pause: self.pauses.then_some(pause) }
    }

    /// Counts an attempt from which the handler has not returned, because it blocks its thread.
    pub(crate) fn stuck(&self, message: &ReceivedMessage) {
        if self.max.is_some() {
            self.count_failure(message, true);
        }
    }

    /// Whether all attempts of a message have failed, and its handler did not return from the last one.
    pub(crate) fn is_stuck(&self, message: &ReceivedMessage) -> bool {
        let Failures { count, stuck, .. } = self.failures(message);
        stuck && self.is_limit(count)
    }

    /// Counts a failure, and returns how many there are. `stuck` if the handler did not return.
    fn count_failure(&self, message: &ReceivedMessage, stuck: bool) -> u32 {
        let (identity, mut counts) = (self.identity(message), self.lock());
        let before = counts.get(&identity).copied().unwrap_or_default();
        let count = before.count.saturating_add(1);
        let first = before.first.or_else(|| Some(clock::now()));
        counts.insert(identity, Failures { count, first, stuck }, FAILED_TTL);
        self.any.store(true, Relaxed);
        count
    }

    /// Forgets a message that is settled.
    pub(crate) fn forget(&self, message: &ReceivedMessage) {
        if self.any.load(Relaxed) {
            self.lock().remove(&self.identity(message));
        }
    }

    /// The failures of a message so far.
    pub(crate) fn count(&self, message: &ReceivedMessage) -> u32 {
        self.failures(message).count
    }

    /// When a message failed first.
    pub(crate) fn first_failure(&self, message: &ReceivedMessage) -> Option<Timestamp> {
        self.failures(message).first
    }

    /// Sets the attempt of each message whose number the service does not tell.
    pub(crate) fn number(&self, messages: &mut [ReceivedMessage]) {
        if self.any.load(Relaxed) {
            for message in messages.iter_mut().filter(|message| message.attempt.is_none()) {
                message.attempt = Some(self.count(message).saturating_add(1));
            }
        }
    }

    fn failures(&self, message: &ReceivedMessage) -> Failures {
        match self.any.load(Relaxed) {
            true => self.lock().get(&self.identity(message)).copied().unwrap_or_default(),
            false => Failures::default(),
        }
    }

    fn is_limit(&self, failed: u32) -> bool {
        self.max.is_some_and(|max| failed >= max)
    }

    /// Without a place or a unique key, equal bodies share a count: better too few attempts than attempts without end.
    fn identity(&self, message: &ReceivedMessage) -> Identity {
        Identity::of(message, self.unique_key.as_ref()).unwrap_or_else(|| Identity::of_body(message))
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, Failures>> {
        // No code that can panic runs under this lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Attributes, Body};

    const SECOND: Duration = Duration::from_secs(1);

    fn message(body: &str) -> ReceivedMessage {
        ReceivedMessage::new(Body::json(body).unwrap(), Attributes::new(), Vec::new(), "h")
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_attempt_is_known_by_the_body_and_pauses_grow() {
        let counts = AttemptCounts::new(Some(3), None, true);
        let (poison, other) = (message("poison"), message("other"));
        let failed = |message: &ReceivedMessage| {
            let Counted { is_last, pause } = counts.failed(message);
            (is_last, pause.unwrap())
        };
        assert_eq!(failed(&poison), (false, SECOND));
        assert_eq!(failed(&other), (false, SECOND), "another message");
        assert_eq!([failed(&poison), failed(&poison)], [(false, SECOND * 2), (true, SECOND * 4)]);
        assert!(!counts.is_stuck(&poison), "its handler returned");
        let mut received = [poison.clone(), other.clone(), message("new")];
        counts.number(&mut received);
        assert_eq!(received.map(|message| message.attempt), [Some(4), Some(2), Some(1)]);
        counts.forget(&poison);
        assert_eq!(failed(&poison), (false, SECOND), "it was settled in between");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_returned_counts() {
        let counts = AttemptCounts::new(Some(2), None, true);
        counts.stuck(&message("a"));
        assert!(!counts.is_stuck(&message("a")), "one attempt is left");
        counts.stuck(&message("a"));
        assert!(counts.is_stuck(&message("a")) && !counts.is_stuck(&message("b")));
        assert!(counts.failed(&message("a")).is_last);
        assert!(!counts.is_stuck(&message("a")), "it returned late");
    }

    #[tokio::test(start_paused = true)]
    async fn the_attempt_of_the_service_is_not_changed() {
        let counts = AttemptCounts::new(Some(3), None, false);
        let mut known = [message("a")];
        known[0].attempt = Some(7);
        counts.failed(&known[0]);
        counts.number(&mut known);
        assert_eq!(known[0].attempt, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_and_pauses_nothing_is_counted() {
        let counts = AttemptCounts::new(None, None, false);
        assert_eq!(counts.failed(&message("a")), Counted { is_last: false, pause: None });
        assert_eq!(counts.lock().size(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn counts_expire_and_are_bounded() {
        let counts = AttemptCounts::new(Some(2), None, false);
        counts.failed(&message("a"));
        tokio::time::advance(FAILED_TTL).await;
        assert!(!counts.failed(&message("a")).is_last, "its last failure is long ago");
        for number in 0..=CAPACITY {
            counts.failed(&message(&number.to_string()));
        }
        assert!(counts.lock().size().0 <= CAPACITY);
    }
}
