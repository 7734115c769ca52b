//! The redelivery explainer: what says why a message came again.
//!
//! A worker notes of each message that it leaves to the service why it does, by what is one message's [own](crate::worker::dedup::memory). When the
//! message comes again, the log, an event and a metric say why. What another worker left, one that shut down say, is unknown here;
//! a copy that was sent again says so itself, in its attributes, whoever sent it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    message::ReceivedMessage,
    worker::{
        dedup::{
            memory::{CAPACITY, Identity, Memory},
            redelivery::Redelivery,
        },
        failure::{DEFERRED, ORIGIN, REASON, UNDECODABLE},
        observe::event::HandlerOutcome,
    },
};

/// What a worker knows of the messages that it left to come again.
#[derive(Debug)]
pub(crate) struct Redeliveries {
    left: Mutex<Memory<Identity, Redelivery>>,
    keep: Duration,
    /// The name of the worker's queue, as copies tell it.
    queue: String,
}

impl Redeliveries {
    /// Remembers each message of this queue for so long.
    pub(crate) fn new(queue: String, keep: Duration) -> Self {
        Self { left: Mutex::new(Memory::new(CAPACITY)), keep, queue }
    }

    /// The message comes again, for this reason.
    pub(crate) fn expect(&self, identity: Identity, reason: Redelivery) {
        self.lock().note(identity, reason, self.keep);
    }

    /// Why a message that was received came again; `None` when it comes for the first time, as far as is known.
    pub(crate) fn explain(&self, message: &ReceivedMessage, identity: Option<&Identity>) -> Option<Redelivery> {
        let known = identity.and_then(|identity| self.lock().take(identity));
        let again = || message.attempt.is_some_and(|attempt| attempt > 1).then_some(Redelivery::Unknown);
        known.or_else(again).or_else(|| self.copied(message))
    }

    /// Why a copy was sent again. One in a parking queue is there for the first time.
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

    fn lock(&self) -> MutexGuard<'_, Memory<Identity, Redelivery>> {
        // No code that can panic runs under this lock.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason of a message whose handler ended so; `None` when this worker does not see it again.
pub(crate) fn reason(outcome: &HandlerOutcome<'_>) -> Option<Redelivery> {
    match outcome {
        // One that is interrupted comes to another worker: this one has stopped fetching.
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

    fn redeliveries() -> Redeliveries {
        Redeliveries::new("orders".to_owned(), Duration::from_secs(60))
    }

    fn message(attempt: u32, pairs: &[(&str, &str)]) -> ReceivedMessage {
        let attributes = pairs.iter().copied().collect::<Attributes>();
        let mut message = ReceivedMessage::new(Body::json("x").unwrap(), attributes, Vec::new(), "h");
        (message.sequence, message.attempt, message.entered_ms) = (Some(7), Some(attempt), Some(5));
        message
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_worker_left_is_explained_once() {
        let redeliveries = redeliveries();
        let (first, again) = (message(1, &[]), message(2, &[]));
        let identity = Identity::of(&again, None);
        assert_eq!(redeliveries.explain(&first, identity.as_ref()), None);
        redeliveries.expect(identity.clone().unwrap(), Redelivery::BehindFailure);
        assert_eq!(redeliveries.explain(&again, identity.as_ref()), Some(Redelivery::BehindFailure));
        assert_eq!(redeliveries.explain(&again, identity.as_ref()), Some(Redelivery::Unknown), "left by somebody else");
    }

    #[test]
    fn a_copy_says_itself_why_it_was_sent() {
        let why = |pairs: &[(&str, &str)]| redeliveries().explain(&message(1, pairs), None);
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
