//! Why a message is redelivered: the reasons, and what a worker remembers of them.
//!
//! A worker records the reason for each message that it leaves to the service, under the message's
//! [identity](crate::worker::dedup::identity). When the message is redelivered, a log line, an event and a metric name
//! the reason. The reasons of other workers are not known; a copy carries its reason in its attributes, whichever
//! worker sent it.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    message::ReceivedMessage,
    ttl_map::TtlMap,
    worker::{
        attributes::{DEFERRED, ORIGIN, REASON, UNDECODABLE},
        dedup::identity::{CAPACITY, Identity},
        handler::outcome::HandlerOutcome,
    },
};

/// Why a message was redelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Redelivery {
    /// Its handler failed.
    Failed,
    /// Its handler rejected it, or could not decode it.
    Rejected,
    /// Its handler panicked.
    Panicked,
    /// Its handler was stopped at its deadline, or says that it took too long.
    TimedOut,
    /// Its handler deferred it.
    Deferred,
    /// A message before it in its batch failed: the service fails all messages after a failure.
    BehindFailure,
    /// Its batch was handed back, because the worker stopped or was paused, or a message before it could not be started
    /// in time.
    HandedBack,
    /// It was not started, because too little of the lease was left, or because a message before it in its order had
    /// failed.
    NotStarted,
    /// The acknowledgement of its batch arrived too late.
    LateAck,
    /// The reply to the acknowledgement of its batch was lost.
    LostAck,
    /// The acknowledgement of its batch was refused, or settled fewer messages than it named.
    RejectedAck,
    /// The lease of its batch expired while the service could not be reached.
    LeaseLapsed,
    /// The previous consumer did not acknowledge it (it stopped, crashed, or its lease expired), or the delivery is too
    /// long ago to be remembered.
    Unknown,
}

impl Redelivery {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::Failed,
        Self::Rejected,
        Self::Panicked,
        Self::TimedOut,
        Self::Deferred,
        Self::BehindFailure,
        Self::HandedBack,
        Self::NotStarted,
        Self::LateAck,
        Self::LostAck,
        Self::RejectedAck,
        Self::LeaseLapsed,
        Self::Unknown,
    ];

    /// A short stable name, as in the label `reason` of `dms_worker_redeliveries_total`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Deferred => "deferred",
            Self::BehindFailure => "behind_failure",
            Self::HandedBack => "handed_back",
            Self::NotStarted => "not_started",
            Self::LateAck => "late_ack",
            Self::LostAck => "lost_ack",
            Self::RejectedAck => "rejected_ack",
            Self::LeaseLapsed => "lease_lapsed",
            Self::Unknown => "unknown",
        }
    }

    /// The reason with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Redelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "its handler failed",
            Self::Rejected => "its handler rejected it, or could not decode it",
            Self::Panicked => "its handler panicked",
            Self::TimedOut => "its handler took too long",
            Self::Deferred => "its handler deferred it",
            Self::BehindFailure => "a message before it in its batch failed",
            Self::HandedBack => "its batch was handed back without counting a failure",
            Self::NotStarted => "it was not started in time",
            Self::LateAck => "the acknowledgement of its batch arrived too late",
            Self::LostAck => "the reply to the acknowledgement of its batch was lost",
            Self::RejectedAck => "the acknowledgement of its batch was refused",
            Self::LeaseLapsed => "its lease expired while the service could not be reached",
            Self::Unknown => "the previous consumer did not acknowledge it (it stopped, crashed, or its lease expired)",
        })
    }
}

/// The reasons that a worker remembers.
#[derive(Debug)]
pub(crate) struct RedeliveryLog {
    left: Mutex<TtlMap<Identity, Redelivery>>,
    keep: Duration,
    /// The name of the worker's queue, as it stands in the attributes of copies.
    queue: String,
}

impl RedeliveryLog {
    /// Remembers the messages of a queue for `keep` each.
    pub(crate) fn new(queue: String, keep: Duration) -> Self {
        Self { left: Mutex::new(TtlMap::new(CAPACITY)), keep, queue }
    }

    /// Records why a message is going to be redelivered.
    pub(crate) fn record(&self, identity: Identity, reason: Redelivery) {
        self.lock().insert(identity, reason, self.keep);
    }

    /// Why a message was redelivered; `None` for a first delivery, as far as is known. The reason is forgotten.
    pub(crate) fn explain(&self, message: &ReceivedMessage, identity: Option<&Identity>) -> Option<Redelivery> {
        let known = identity.and_then(|identity| self.lock().remove(identity));
        // Without a place, the number of the attempt is the worker's own count of failures.
        let unknown = if message.sequence.is_some() { Redelivery::Unknown } else { Redelivery::Failed };
        let again = || message.attempt.is_some_and(|attempt| attempt > 1).then_some(unknown);
        known.or_else(again).or_else(|| self.copied(message))
    }

    /// Why a copy was sent. In a parking queue a copy is delivered for the first time.
    fn copied(&self, message: &ReceivedMessage) -> Option<Redelivery> {
        let attributes = &message.attributes;
        if attributes.is_empty() {
            return None;
        }
        if attributes.contains(DEFERRED) {
            return Some(Redelivery::Deferred);
        }
        if attributes.get_str(ORIGIN)? != self.queue {
            return None;
        }
        Some(match &*attributes.get_str(REASON)? {
            UNDECODABLE => Redelivery::Rejected,
            name => Redelivery::named(name).unwrap_or(Redelivery::Failed),
        })
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, Redelivery>> {
        // No code that can panic runs under this lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason for a message whose handler ended with this outcome; `None` if this worker does not receive it again.
pub(crate) fn reason(outcome: &HandlerOutcome<'_>) -> Option<Redelivery> {
    match outcome {
        // An interrupted message goes to another worker, because this one has stopped fetching.
        HandlerOutcome::Done | HandlerOutcome::Interrupted => None,
        other => Redelivery::named(other.name()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        message::{Attributes, Body},
        worker::HandlerError,
    };

    fn redelivery_log() -> RedeliveryLog {
        RedeliveryLog::new("orders".to_owned(), Duration::from_secs(60))
    }

    fn message(attempt: u32, pairs: &[(&str, &str)]) -> ReceivedMessage {
        let attributes = pairs.iter().copied().collect::<Attributes>();
        let mut message = ReceivedMessage::new(Body::json("x").unwrap(), attributes, Vec::new(), "h");
        (message.sequence, message.attempt, message.entered_ms) = (Some(7), Some(attempt), Some(5));
        message
    }

    #[tokio::test(start_paused = true)]
    async fn a_redelivery_is_explained_once() {
        let redelivery_log = redelivery_log();
        let (first, again) = (message(1, &[]), message(2, &[]));
        let identity = Identity::of(&again, None);
        assert_eq!(redelivery_log.explain(&first, identity.as_ref()), None);
        redelivery_log.record(identity.clone().unwrap(), Redelivery::BehindFailure);
        assert_eq!(redelivery_log.explain(&again, identity.as_ref()), Some(Redelivery::BehindFailure));
        assert_eq!(
            redelivery_log.explain(&again, identity.as_ref()),
            Some(Redelivery::Unknown),
            "left by somebody else"
        );
    }

    #[test]
    fn a_copy_carries_the_reason_why_it_was_sent() {
        let why = |pairs: &[(&str, &str)]| redelivery_log().explain(&message(1, pairs), None);
        assert_eq!(why(&[(DEFERRED, "t")]), Some(Redelivery::Deferred));
        assert_eq!(why(&[(REASON, "timed_out"), (ORIGIN, "orders")]), Some(Redelivery::TimedOut));
        assert_eq!(why(&[(REASON, "undecodable"), (ORIGIN, "orders")]), Some(Redelivery::Rejected));
        assert_eq!(why(&[(REASON, "of a later version"), (ORIGIN, "orders")]), Some(Redelivery::Failed));
        assert_eq!(why(&[(REASON, "rejected"), (ORIGIN, "carts")]), None, "it was parked here");
    }

    #[test]
    fn every_outcome_has_its_reason() {
        let (retry, reject) = (HandlerError::retry("no"), HandlerError::reject("never"));
        let defer = HandlerError::defer(Duration::from_secs(1));
        let reason = |outcome| super::reason(&outcome);
        assert_eq!(reason(HandlerOutcome::Done), None);
        assert_eq!(reason(HandlerOutcome::Failed(&retry)), Some(Redelivery::Failed));
        assert_eq!(reason(HandlerOutcome::Failed(&reject)), Some(Redelivery::Rejected));
        assert_eq!(reason(HandlerOutcome::Failed(&defer)), Some(Redelivery::Deferred));
        assert_eq!(reason(HandlerOutcome::Panicked("p")), Some(Redelivery::Panicked));
        assert_eq!(reason(HandlerOutcome::TimedOut), Some(Redelivery::TimedOut));
        assert_eq!(reason(HandlerOutcome::Interrupted), None);
    }
}
