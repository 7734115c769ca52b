//! What a worker tells while it works: [`Event`]s, for [`Observer`]s.

use std::{sync::Arc, time::Duration};

use crate::{
    client,
    contain::{contained, debug_text_of},
    worker::{
        dedup::redelivery::Redelivery,
        handler::{
            delivery::{Delivery, Origin},
            outcome::HandlerOutcome,
        },
        settlement::ledger::{Settlement, Verdict},
    },
};

/// Something that happened in a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A poll was answered with this many messages (none is an empty queue).
    #[non_exhaustive]
    Received {
        /// How many messages came.
        messages: usize,
        /// The size of their bodies.
        bytes: usize,
        /// From the request to the answer.
        took: Duration,
    },
    /// A poll failed; the next one goes out after `retry_in`.
    #[non_exhaustive]
    PollFailed {
        /// What failed.
        error: &'a client::Error,
        /// The pause until the next poll.
        retry_in: Duration,
    },
    /// A message came that was delivered before, as far as is known; before anything is done with it.
    #[non_exhaustive]
    Redelivered {
        /// The message.
        delivery: &'a Delivery,
        /// Why it came again.
        reason: Redelivery,
    },
    /// A handler has begun.
    #[non_exhaustive]
    Started {
        /// Its message.
        delivery: &'a Delivery,
    },
    /// A handler has ended, or was stopped.
    #[non_exhaustive]
    Handled {
        /// Its message.
        delivery: &'a Delivery,
        /// How it ended.
        outcome: HandlerOutcome<'a>,
        /// How long it ran.
        took: Duration,
    },
    /// A message was never handed to the handler: one before it failed, or too little time was left.
    #[non_exhaustive]
    Skipped {
        /// The message.
        delivery: &'a Delivery,
    },
    /// A message came again whose handler had succeeded: it is acknowledged without being run.
    #[non_exhaustive]
    Remembered {
        /// The message.
        delivery: &'a Delivery,
    },
    /// A handler went on running after it was stopped; its place stays taken until it ends.
    #[non_exhaustive]
    Stuck {
        /// Its message.
        delivery: &'a Delivery,
        /// How long it has been running.
        age: Duration,
    },
    /// What became of one message when its batch was acknowledged: one for each, before the batch is [settled](Self::Settled).
    #[non_exhaustive]
    Acknowledged {
        /// The message.
        delivery: &'a Delivery,
        /// What became of it.
        result: MessageAck,
    },
    /// A batch was acknowledged, or the attempt is over.
    #[non_exhaustive]
    Settled {
        /// How the acknowledgement ended.
        result: AckResult<'a>,
        /// How many messages it reported as settled: done, or rejected where that makes dead letters.
        done: usize,
        /// How many messages come again.
        rest: usize,
        /// How many of the rest were handed back without a failure counted.
        released: usize,
    },
}

/// How an acknowledgement ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AckResult<'a> {
    /// The service answered: so many messages are settled, so many come again.
    #[non_exhaustive]
    Answered {
        /// `success` of the answer.
        success: usize,
        /// `fail` of the answer.
        fail: usize,
    },
    /// The lease was over: all of the batch comes again.
    Late,
    /// An answer was lost, so nobody knows: the batch may come again.
    Unknown,
    /// The service refused it for another reason: the batch comes again.
    Refused(&'a client::Error),
}

impl AckResult<'_> {
    /// A short stable name: `answered`, `late`, `unknown`, `refused`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::Late => "late",
            Self::Unknown => "unknown",
            Self::Refused(_) => "refused",
        }
    }
}

/// What became of one message when its batch was acknowledged. All but [`Acked`](Self::Acked) and
/// [`DeadLettered`](Self::DeadLettered) come again, or may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageAck {
    /// It was done, and the service has settled it.
    Acked,
    /// It was not done, or stood behind one that was not: the service hands it out again, or moves it to the dead letters.
    Returned,
    /// It was rejected, and the service has made it a dead letter.
    DeadLettered,
    /// It was handed back, or stood behind one that was: the service hands it out again, and counts no failure.
    Released,
    /// The lease was over, or the service could not be reached while it lasted.
    Late,
    /// It was done, and the service did not settle it.
    Rejected,
    /// An answer was lost, so nobody knows.
    Unknown,
}

impl MessageAck {
    /// Every result.
    pub const ALL: [Self; 7] =
        [Self::Acked, Self::Returned, Self::DeadLettered, Self::Released, Self::Late, Self::Rejected, Self::Unknown];

    /// A short stable name: `acked`, `returned`, `dead_lettered`, `released`, `late`, `rejected`, `unknown`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Returned => "returned",
            Self::DeadLettered => "dead_lettered",
            Self::Released => "released",
            Self::Late => "late",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }

    /// What `result` means for the message at a position with this verdict, `told` being what the service was told.
    pub(crate) fn of(result: &AckResult<'_>, position: usize, verdict: Option<Verdict>, told: Settlement) -> Self {
        match *result {
            AckResult::Answered { success, .. } if position < success.min(told.done) => match verdict {
                Some(Verdict::Rejected) => Self::DeadLettered,
                _ => Self::Acked,
            },
            AckResult::Answered { .. } if position >= told.done && told.released() > 0 => Self::Released,
            AckResult::Answered { .. } if position >= told.done => Self::Returned,
            AckResult::Late => Self::Late,
            AckResult::Unknown => Self::Unknown,
            AckResult::Refused(error) if error.is_connect() || error.is_timeout() => Self::Late,
            AckResult::Answered { .. } | AckResult::Refused(_) => Self::Rejected,
        }
    }
}

/// Is told every event of a worker, on the task that caused it: it should be quick and must not block. A panic is logged and
/// otherwise without effect.
pub trait Observer: Send + Sync + 'static {
    /// Takes in one event of this worker.
    fn observe(&self, origin: &Origin, event: &Event<'_>);
}

/// All observers of a worker.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }

    pub(crate) fn emit(&self, origin: &Origin, event: &Event<'_>) {
        for observer in &self.0 {
            if let Err(panic) = contained(|| observer.observe(origin, event)) {
                let event = debug_text_of(event);
                tracing::error!(worker = origin.worker, event, panic, "an observer panicked");
            }
        }
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::settlement::ledger::Stop;

    /// Of three messages the first two were done.
    #[test]
    fn each_message_of_an_acknowledgement_has_its_result() {
        use MessageAck::{Acked, DeadLettered, Late, Rejected, Released, Returned, Unknown};
        let told = |stop| Settlement { done: 2, rest: 1, stop };
        let done = Some(Verdict::Done);
        let of =
            |result: AckResult<'_>| [0, 1, 2].map(|position| MessageAck::of(&result, position, done, told(Stop::Fail)));
        let all = AckResult::Answered { success: 2, fail: 1 };
        assert_eq!(MessageAck::of(&all, 1, Some(Verdict::Rejected), told(Stop::Fail)), DeadLettered);
        assert_eq!(MessageAck::of(&all, 2, Some(Verdict::NotStarted), told(Stop::Release)), Released);
        assert_eq!(of(AckResult::Answered { success: 2, fail: 1 }), [Acked, Acked, Returned]);
        assert_eq!(of(AckResult::Answered { success: 1, fail: 2 }), [Acked, Rejected, Returned]);
        assert_eq!(of(AckResult::Answered { success: 3, fail: 0 }), [Acked, Acked, Returned], "not what was asked");
        assert_eq!(of(AckResult::Late), [Late; 3]);
        assert_eq!(of(AckResult::Unknown), [Unknown; 3]);
    }
}
