//! [`FailurePolicy`]: what becomes of a message that was not done. It is redelivered, copied with a delay, parked,
//! rejected or discarded.

pub(crate) mod attempts;
pub(crate) mod exhausted;
pub(crate) mod parking;
pub(crate) mod policy;
pub(crate) mod reject_pauses;
pub(crate) mod wrapped;

use std::{sync::Arc, time::Duration};

use crate::{
    client::Error,
    clock,
    limits::MAX_DELAY,
    message::{FailureReport, Message, ReceivedMessage},
    worker::{
        attributes::{
            self, ATTEMPTS, DEFERRED, ERROR, FIRST_FAILURE, LAST_FAILURE, ORIGIN, REASON, UNDECODABLE, WORKER,
        },
        failure::{
            attempts::{AttemptCounts, Counted},
            exhausted::ExhaustedMessages,
            parking::ParkingQueues,
            policy::{OnFailure, OnReject, OnUndecodable},
            reject_pauses::RejectPauses,
            wrapped::wrap,
        },
        fetch::source::Source,
        handler::{
            delivery::failed_attempts,
            error::{FailureKind, HandlerError},
            outcome::HandlerOutcome,
        },
        settlement::ledger::Verdict,
    },
};

/// The delay of a message that a handler released, on a service that cannot take messages back.
const RELEASE_DELAY: Duration = Duration::from_secs(10);

/// The maximum length of an error text in an attribute, in characters.
const MAX_ERROR_CHARS: usize = 1_000;

/// The failure policies of a worker.
#[derive(Debug)]
pub(crate) struct FailurePolicy {
    pub(crate) on_failure: OnFailure,
    pub(crate) on_reject: OnReject,
    pub(crate) on_undecodable: OnUndecodable,
    pub(crate) parking: ParkingQueues,
    /// Whether the queue accepts delayed messages without losing its order.
    pub(crate) delays: bool,
    /// Whether parked copies carry their history in the body, because the service has no attributes.
    pub(crate) wraps: bool,
    /// Whether a message that fails for good becomes a dead letter.
    pub(crate) dead_letters: bool,
    /// Whether the worker consumes dead letters.
    pub(crate) of_dead_letters: bool,
    /// The worker's name, for the history of copies.
    pub(crate) worker: String,
    /// The queue's name, for the history of copies.
    pub(crate) queue: String,
    pub(crate) source: Arc<dyn Source>,
    /// The failed attempts that the worker counts itself.
    pub(crate) attempts: AttemptCounts,
    /// Messages that are not handled again, because their attempts are used up.
    pub(crate) exhausted: ExhaustedMessages,
    /// Delays of rejected messages that stay in the queue, because it has no dead letters.
    pub(crate) pauses: RejectPauses,
}

/// The decision of a policy about one message.
#[derive(Debug, PartialEq)]
enum Decision<'a> {
    Fail {
        /// How long to wait before the failure is reported.
        pause: Option<Duration>,
    },
    /// The message is handed back without counting a failure.
    Release,
    /// The message should never be handled again.
    GiveUp {
        exhausted: bool,
    },
    Acknowledge,
    Copy {
        delay: Duration,
        failed: u32,
    },
    Defer {
        delay: Duration,
    },
    Park {
        name: &'a str,
    },
}

/// Why a message that should never be handled again is redelivered endlessly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// Nothing takes it out of its queue.
    Kept,
    /// Its copy could not be sent. An error in the log has said why.
    NotCopied,
}

/// The result of a policy for a message that was not done.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) verdict: Verdict,
    /// The failure or reject, as reported to the service.
    pub(crate) report: Option<FailureReport>,
    /// Why its queue will redeliver the message endlessly, if it should never be handled again.
    pub(crate) loops: Option<Loop>,
    /// Whether its attempts are used up.
    pub(crate) exhausted: bool,
    /// How long to wait before a failure is reported, unless the message loops.
    pub(crate) pause: Option<Duration>,
}

impl From<Verdict> for Resolution {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, report: None, loops: None, exhausted: false, pause: None }
    }
}

impl FailurePolicy {
    /// Why a message that should never be handled again is redelivered.
    pub(crate) fn why_it_loops(&self) -> &'static str {
        if self.of_dead_letters { "a dead letter cannot be rejected" } else { "their queue has no dead letters" }
    }

    /// How to prevent that.
    pub(crate) fn remedy(&self) -> &'static str {
        // This service has no dead letters that could be enabled.
        if self.wraps { "set on_reject to park or discard" } else { policy::REMEDY }
    }

    /// Applies the policy to a message that was not done, and returns its verdict.
    ///
    /// If a copy cannot be sent, the message counts as failed: it is redelivered, and nothing is lost.
    pub(crate) async fn resolve(&self, message: &ReceivedMessage, outcome: &HandlerOutcome<'_>) -> Resolution {
        let decision = self.decide(message, outcome);
        // Retrying such a message at once is of no use.
        let hopeless = matches!(decision, Decision::Park { .. }) || reason(outcome) == UNDECODABLE;
        let failing = |hopeless: bool, why: Loop| Resolution {
            report: Some(self.report(message, outcome, false)),
            loops: (hopeless && !self.dead_letters).then_some(why),
            ..Verdict::Failed.into()
        };
        let failed = || failing(hopeless, Loop::Kept);
        let sent = match decision {
            Decision::Acknowledge => return Verdict::Done.into(),
            Decision::Fail { pause } => return Resolution { pause, ..failed() },
            Decision::Release => return Verdict::NotStarted.into(),
            Decision::GiveUp { exhausted } => return self.give_up(self.report(message, outcome, exhausted), exhausted),
            // A message that cannot be read cannot be copied.
            Decision::Copy { .. } | Decision::Defer { .. } if message.undecodable().is_some() => return failed(),
            Decision::Copy { delay, failed } => {
                let copy = self.copy(message, outcome).attribute(ATTEMPTS, failed);
                self.source.forward(None, copy.delay(delay)).await
            }
            Decision::Defer { delay } => self.source.forward(None, deferred_copy(message).delay(delay)).await,
            Decision::Park { name } => {
                let attempts = attempts(message).max(self.attempts.count(message));
                let copy = self.copy(message, outcome).attribute(ATTEMPTS, attempts);
                let first =
                    self.attempts.first_failure(message).filter(|_| !message.attributes.contains(FIRST_FAILURE));
                let copy = match first {
                    Some(first) => copy.attribute(FIRST_FAILURE, first.to_string()),
                    None => copy,
                };
                self.park(name, if self.wraps { wrap(&copy) } else { copy }).await
            }
        };
        match sent {
            Ok(()) => Verdict::Done.into(),
            Err(error) => {
                tracing::warn!(worker = self.worker, %error, "the copy of a failed message could not be sent, so the message is redelivered");
                // If a copy is refused, for example because it is too large, it will be refused again.
                failing(hopeless || !error.is_retryable(), Loop::NotCopied)
            }
        }
    }

    /// The result for a message that should never be handled again.
    pub(crate) fn give_up(&self, report: FailureReport, exhausted: bool) -> Resolution {
        let rejects = self.dead_letters && self.source.extensions().reject();
        let verdict = if rejects { Verdict::Rejected } else { Verdict::Failed };
        Resolution {
            verdict,
            report: Some(report),
            loops: (!self.dead_letters).then_some(Loop::Kept),
            exhausted,
            pause: None,
        }
    }

    /// Sends a copy to a parking queue. A queue that was deleted is looked up again by its name.
    async fn park(&self, name: &str, copy: Message) -> Result<(), Error> {
        if let Some(queue) = self.parking.get(name) {
            match self.source.forward(Some(&queue), copy.clone()).await {
                Err(error) if error.is_not_found() => {}
                sent => return sent,
            }
        }
        let queue = self.source.find_queue(name).await?;
        self.parking.set(name, queue.clone());
        self.source.forward(Some(&queue), copy).await
    }

    /// What the policies say about a message after a call. Counts the failure if it is one.
    fn decide(&self, message: &ReceivedMessage, outcome: &HandlerOutcome<'_>) -> Decision<'_> {
        let kind = match outcome {
            HandlerOutcome::Done => return Decision::Acknowledge,
            HandlerOutcome::Interrupted => return Decision::Release,
            HandlerOutcome::Failed(error) => error.kind(),
            HandlerOutcome::Panicked(_) | HandlerOutcome::TimedOut => FailureKind::Retry,
        };
        match kind {
            FailureKind::Reject => given_up(&self.on_reject, false),
            FailureKind::Undecodable => match &self.on_undecodable {
                OnUndecodable::Reject => given_up(&self.on_reject, false),
                OnUndecodable::Retry => self.retry(message),
                OnUndecodable::Own(policy) => given_up(policy, false),
            },
            FailureKind::Release if self.source.extensions().release() => Decision::Release,
            FailureKind::Release => self.deferred_copy(RELEASE_DELAY),
            FailureKind::Defer(delay) => self.deferred_copy(delay),
            FailureKind::Retry => self.retry(message),
        }
    }

    /// The decision about a message that should come later and did not fail.
    fn deferred_copy(&self, delay: Duration) -> Decision<'_> {
        match self.delays {
            true => Decision::Defer { delay: delay.min(MAX_DELAY) },
            // Without delays, the lease is the only way to keep the message back.
            false => Decision::Fail { pause: self.wraps.then_some(delay) },
        }
    }

    /// The decision about a message that has failed again.
    fn retry(&self, message: &ReceivedMessage) -> Decision<'_> {
        match &self.on_failure {
            OnFailure::Redeliver => match self.attempts.failed(message) {
                Counted { is_last: true, .. } => given_up(&self.on_reject, true),
                Counted { is_last: false, pause } => Decision::Fail { pause },
            },
            OnFailure::Republish(republish) => {
                let failed = failed_attempts(&message.attributes).saturating_add(1);
                match republish.delay(failed, fastrand::f64()) {
                    Some(delay) => Decision::Copy { delay, failed },
                    None => given_up(&republish.then, true),
                }
            }
        }
    }

    /// The report of a failure to the service. `exhausted` if it was the last attempt.
    pub(crate) fn report(
        &self,
        message: &ReceivedMessage,
        outcome: &HandlerOutcome<'_>,
        exhausted: bool,
    ) -> FailureReport {
        let reason = match reason(outcome) {
            _ if exhausted && matches!(self.on_failure, OnFailure::Republish(_)) => "republish_exhausted",
            "deferred" => "failed",
            reason => reason,
        };
        let before = message.attributes.get_str(FIRST_FAILURE);
        let now = clock::now();
        FailureReport {
            reason: reason.into(),
            error: error_text(outcome),
            worker: self.worker.clone(),
            first_failure_ms: before.and_then(|text| text.parse().ok()).map(jiff::Timestamp::as_millisecond),
            last_failure_ms: Some(now.as_millisecond()),
        }
    }

    /// A copy of a message that failed, with the history of its failures.
    fn copy(&self, message: &ReceivedMessage, outcome: &HandlerOutcome<'_>) -> Message {
        let mut copy = copy_of(message);
        copy.attributes.remove(DEFERRED);
        let now = clock::now().to_string();
        if !copy.attributes.contains(FIRST_FAILURE) {
            copy.attributes.insert(FIRST_FAILURE, now.as_str());
        }
        let text: String = error_text(outcome).chars().take(MAX_ERROR_CHARS).collect();
        copy.attribute(LAST_FAILURE, now)
            .attribute(ERROR, text)
            .attribute(REASON, reason(outcome))
            .attribute(WORKER, self.worker.as_str())
            .attribute(ORIGIN, self.queue.as_str())
    }
}

/// A delayed copy of a message that did not fail. It keeps the number of attempts that its queue has counted.
fn deferred_copy(message: &ReceivedMessage) -> Message {
    let copy = copy_of(message).attribute(DEFERRED, clock::now().to_string());
    match attempts(message).saturating_sub(1) {
        0 => copy,
        failed => copy.attribute(ATTEMPTS, failed),
    }
}

/// The number of attempts of a message, including this one.
fn attempts(message: &ReceivedMessage) -> u32 {
    failed_attempts(&message.attributes).saturating_add(message.attempt.unwrap_or(1))
}

/// A message with the same content, which keeps the id of the original among its attributes.
fn copy_of(message: &ReceivedMessage) -> Message {
    // A body that cannot be read cannot be sent as it is; its text can.
    let body = if message.undecodable().is_some() { message.body.quoted() } else { message.body.clone() };
    let mut copy = Message::new(body);
    copy.attributes.clone_from(&message.attributes);
    copy.tags.clone_from(&message.tags);
    attributes::keep_id(&mut copy, message);
    copy
}

/// The word for the failure of a message.
pub(crate) fn reason(outcome: &HandlerOutcome<'_>) -> &'static str {
    match outcome {
        HandlerOutcome::Failed(error) if error.kind() == FailureKind::Undecodable => UNDECODABLE,
        other => other.name(),
    }
}

/// The decision about a message that is not tried again. `exhausted` if its attempts are used up.
fn given_up(policy: &OnReject, exhausted: bool) -> Decision<'_> {
    match policy {
        OnReject::Fail => Decision::GiveUp { exhausted },
        OnReject::Discard => Decision::Acknowledge,
        OnReject::Park(name) => Decision::Park { name },
    }
}

fn error_text(outcome: &HandlerOutcome<'_>) -> String {
    match outcome {
        HandlerOutcome::Failed(error) => HandlerError::to_string(error),
        HandlerOutcome::Panicked(message) => format!("panicked: {message}"),
        HandlerOutcome::TimedOut => "the handler was stopped at its deadline".to_owned(),
        HandlerOutcome::Done | HandlerOutcome::Interrupted => outcome.name().to_owned(),
    }
}
