//! [`Event`]s that a worker reports to [`Observer`]s while it works.

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

/// An event in a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A poll was answered; no messages mean that the queue is empty.
    #[non_exhaustive]
    Received {
        /// The number of messages received.
        messages: usize,
        /// The total size of their bodies.
        bytes: usize,
        /// The time from the request to the reply.
        took: Duration,
    },
    /// A poll failed. The next one is sent after `retry_in`.
    #[non_exhaustive]
    PollFailed {
        /// What failed.
        error: &'a client::Error,
        /// The pause until the next poll.
        retry_in: Duration,
    },
    /// A message was received that had been delivered before, as far as is known. Reported before anything is done with
    /// it.
    #[non_exhaustive]
    Redelivered {
        /// The message.
        delivery: &'a Delivery,
        /// Why it was redelivered.
        reason: Redelivery,
    },
    /// The call of a handler has started.
    #[non_exhaustive]
    Started {
        /// Its message.
        delivery: &'a Delivery,
    },
    /// The call of a handler has ended, or was stopped.
    #[non_exhaustive]
    Handled {
        /// Its message.
        delivery: &'a Delivery,
        /// How it ended.
        outcome: HandlerOutcome<'a>,
        /// The duration of the call.
        took: Duration,
    },
    /// A message was not passed to its handler, because a message before it failed or too little time was left.
    #[non_exhaustive]
    Skipped {
        /// The message.
        delivery: &'a Delivery,
    },
    /// A message was redelivered after its handler had succeeded. It is acknowledged without calling the handler.
    #[non_exhaustive]
    Remembered {
        /// The message.
        delivery: &'a Delivery,
    },
    /// A handler continued after it was stopped. Its capacity stays taken until it ends.
    #[non_exhaustive]
    Stuck {
        /// Its message.
        delivery: &'a Delivery,
        /// How long it has been running.
        age: Duration,
    },
    /// The result of an acknowledgement for one message. Reported for each message, before its batch is
    /// [settled](Self::Settled).
    #[non_exhaustive]
    Acknowledged {
        /// The message.
        delivery: &'a Delivery,
        /// The result for the message.
        result: MessageAck,
    },
    /// A batch was acknowledged, or its acknowledgement failed for good.
    #[non_exhaustive]
    Settled {
        /// How the acknowledgement ended.
        result: AckResult<'a>,
        /// The number of messages that were reported as settled: done, or rejected where a reject makes dead letters.
        done: usize,
        /// The number of messages that will be redelivered.
        rest: usize,
        /// How many of those were handed back without counting a failure.
        released: usize,
    },
}

/// The result of an acknowledgement.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum AckResult<'a> {
    /// The service replied with the numbers of messages that it settled and that it will redeliver.
    #[non_exhaustive]
    Answered {
        /// The field `success` of the reply.
        success: usize,
        /// The field `fail` of the reply.
        fail: usize,
    },
    /// The lease had expired. The whole batch will be redelivered.
    Late,
    /// The reply was lost, so the result is not known. The batch may be redelivered.
    Unknown,
    /// The service refused it for another reason. The batch will be redelivered.
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

/// The result of an acknowledgement for one message. Unless it is [`Acked`](Self::Acked) or
/// [`DeadLettered`](Self::DeadLettered), the message will or may be redelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MessageAck {
    /// The message was done, and the service has settled it.
    Acked,
    /// The message, or one before it, was not done. The service will redeliver it, or make it a dead letter.
    Returned,
    /// The message was rejected, and the service has made it a dead letter.
    DeadLettered,
    /// The message, or one before it, was handed back. The service will redeliver it without counting a failure.
    Released,
    /// The lease had expired, or the service could not be reached while it lasted.
    Late,
    /// The message was done, but the service did not settle it.
    Rejected,
    /// The reply was lost, so the result is not known.
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

    /// The result for the message at a position with this verdict, of an acknowledgement that reported `reported`.
    pub(crate) fn of(result: &AckResult<'_>, position: usize, verdict: Option<Verdict>, reported: Settlement) -> Self {
        match *result {
            AckResult::Answered { success, .. } if position < success.min(reported.done) => match verdict {
                Some(Verdict::Rejected) => Self::DeadLettered,
                _ => Self::Acked,
            },
            AckResult::Answered { .. } if position >= reported.done && reported.released() > 0 => Self::Released,
            AckResult::Answered { .. } if position >= reported.done => Self::Returned,
            AckResult::Late => Self::Late,
            AckResult::Unknown => Self::Unknown,
            AckResult::Refused(error) if error.is_connect() || error.is_timeout() => Self::Late,
            AckResult::Answered { .. } | AckResult::Refused(_) => Self::Rejected,
        }
    }
}

/// Receives every event of a worker, on the task that caused it. So it should be quick and must not block. A panic of
/// an observer is logged and otherwise ignored.
///
/// ```
/// use std::sync::{
///     Arc,
///     atomic::{AtomicUsize, Ordering::Relaxed},
/// };
///
/// use dms_worker::{
///     HandlerError, handler_fn,
///     queue::NewQueue,
///     testing::TestServer,
///     worker::{Event, Observer, Origin},
/// };
///
/// /// Counts the messages that were delivered before.
/// #[derive(Default)]
/// struct Redelivered(AtomicUsize);
///
/// impl Observer for Redelivered {
///     fn observe(&self, origin: &Origin, event: &Event<'_>) {
///         if let Event::Redelivered { reason, .. } = event {
///             println!("{}: {reason}", origin.queue());
///             self.0.fetch_add(1, Relaxed);
///         }
///     }
/// }
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await;
///     orders.send(["bad"]).await;
///
///     let redelivered = Arc::new(Redelivered::default());
///     let fails = handler_fn(|| async { Err(HandlerError::retry("no such account")) });
///     orders.run_worker(orders.worker(fails).observer(redelivered.clone())).await;
///     assert_eq!(redelivered.0.load(Relaxed), 2); // of three attempts
/// }
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives one event of this worker.
    fn observe(&self, origin: &Origin, event: &Event<'_>);
}

/// The observers of a worker.
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

    /// Of three messages, the first two were done.
    #[test]
    fn each_message_of_an_acknowledgement_has_its_result() {
        use MessageAck::{Acked, DeadLettered, Late, Rejected, Released, Returned, Unknown};
        let reported = |stop| Settlement { done: 2, rest: 1, stop };
        let done = Some(Verdict::Done);
        let of = |result: AckResult<'_>| {
            [0, 1, 2].map(|position| MessageAck::of(&result, position, done, reported(Stop::Fail)))
        };
        let all = AckResult::Answered { success: 2, fail: 1 };
        assert_eq!(MessageAck::of(&all, 1, Some(Verdict::Rejected), reported(Stop::Fail)), DeadLettered);
        assert_eq!(MessageAck::of(&all, 2, Some(Verdict::NotStarted), reported(Stop::Release)), Released);
        assert_eq!(of(AckResult::Answered { success: 2, fail: 1 }), [Acked, Acked, Returned]);
        assert_eq!(of(AckResult::Answered { success: 1, fail: 2 }), [Acked, Rejected, Returned]);
        assert_eq!(
            of(AckResult::Answered { success: 3, fail: 0 }),
            [Acked, Acked, Returned],
            "the answer disagrees with the request"
        );
        assert_eq!(of(AckResult::Late), [Late; 3]);
        assert_eq!(of(AckResult::Unknown), [Unknown; 3]);
    }
}
