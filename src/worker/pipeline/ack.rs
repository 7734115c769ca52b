//! Sends the one acknowledgement of a batch: in the order of consumption, up to the first message that is not settled.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::Instrument;

use crate::{
    client::{AckOutcome, Acked, Error, Extensions},
    message::{AckLine, AckStatus},
    worker::{
        dedup::redelivery::Redelivery,
        failure::Loop,
        fetch::polls::PollScope,
        handler::{
            delivery::{Deliveries, Failure, Origin},
            outcome::HandlerOutcome,
        },
        isolation::{
            ClosedPolls,
            quarantine::{LeaseEnds, MessageTrace},
        },
        observe::{
            event::{AckResult, Event, MessageAck},
            spans,
        },
        pipeline::context::Context,
        settlement::{
            lease::Lease,
            ledger::{Ledger, Settlement, Stop, Verdict},
        },
    },
};

/// The part of a lease that is kept for sending the acknowledgement.
const SEND_TIME: Duration = Duration::from_millis(100);

/// How long a failing acknowledgement waits for batch polls before it asks the service to end them.
const POLL_GRACE: Duration = Duration::from_millis(100);

/// How many replicas in turn may lease a failed message before this worker receives it.
const MAX_OTHER_LEASES: u32 = 2;

/// Acknowledges a batch and reports the result. Returns the number of messages that are settled for good; the others
/// are or may be redelivered.
///
/// The acknowledgement is retried only while the lease lasts. If it reports a failure, it first waits until no other
/// poll can receive the messages that become available again together with others; see
/// [`isolation`](crate::worker::isolation).
pub(crate) async fn settle(
    context: &Context,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    settlement: Settlement,
    lease: Lease,
) -> usize {
    let mut reported = ledger.to_report(settlement, context.source.extensions());
    if let Some(Failure { pause: Some(pause), .. }) = reported.fails().then(|| batch.failure(reported.done)).flatten() {
        wait_before_reporting(context, pause, lease).await;
    }
    // Counted from here on, so that a backlog of acknowledgements holds back polls.
    let _pending = context.acks.begin();
    let mut answer = send(context, batch, ledger, reported, lease).await;
    // A refusal has changed nothing. For example, the queue has lost its dead letters, or another replica of the
    // service supports no extensions.
    let plain = ledger.to_report(reported, Extensions::NONE);
    if plain != reported && answer.as_ref().is_err_and(is_refused) {
        if plain.done < reported.done {
            // Nothing takes the rejected message out of the queue any more.
            let pause = context.rejected_again(&batch.at(plain.done), Loop::Kept);
            wait_before_reporting(context, pause, lease).await;
        }
        reported = plain;
        answer = send(context, batch, ledger, reported, lease).await;
    }
    conclude(context, batch, ledger, reported, &answer)
}

/// Delays the redelivery of a message that would be redelivered endlessly, at most for as long as its lease lasts.
async fn wait_before_reporting(context: &Context, pause: Duration, lease: Lease) {
    let wait = lease.stop_at().saturating_duration_since(Instant::now()).min(pause);
    tokio::select! {
        () = sleep(wait) => {}
        () = context.control.stopping.cancelled() => {}
    }
}

/// Makes sure that no poll receives the messages of a failing acknowledgement together with others. This takes effect
/// before the request is sent, and a lost reply does not undo it.
async fn isolated<'a>(context: &'a Context, batch: &Deliveries, reported: Settlement, lease: Lease) -> ClosedPolls<'a> {
    // When time runs out, acknowledging the finished prefix matters more than waiting for polls in flight.
    let closed = timeout_at(lease.ends_at() - SEND_TIME, close(context)).await;
    let mut closed = closed.unwrap_or_else(|_| context.isolation.close_at_once());
    let own = lease.ends_at();
    let failed = batch.messages().iter().skip(reported.done).map(MessageTrace::of).collect();
    // Before the request, because its reply may be lost, and then the messages may come back all the same.
    closed.quarantine(failed, LeaseEnds { own, others: own + others_leases(context) });
    closed
}

/// How long other replicas may hold messages of the batch after their lease here has ended.
fn others_leases(context: &Context) -> Duration {
    context.ack_wait() * MAX_OTHER_LEASES
}

/// Stops batch polls, and asks the service to end the waiting ones.
async fn close(context: &Context) -> ClosedPolls<'_> {
    let closing = context.isolation.close();
    tokio::pin!(closing);
    // On a queue with messages, they are answered soon anyway.
    if let Ok(closed) = timeout(POLL_GRACE, closing.as_mut()).await {
        return closed;
    }
    tokio::select! {
        biased;
        closed = closing.as_mut() => closed,
        () = context.polling.in_flight.end(&*context.source, PollScope::WaitedFor) => closing.await,
    }
}

/// Whether the service understood the request and refused it.
fn is_refused(error: &Error) -> bool {
    error.status() == Some(StatusCode::BAD_REQUEST)
        && !error.is_retryable()
        && !error.is_lost_lease()
        && !error.is_unsure()
}

/// Sends the acknowledgement.
async fn send(
    context: &Context,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    reported: Settlement,
    lease: Lease,
) -> Result<Acked, Error> {
    let mut closed = match reported.fails() {
        false => None,
        true => Some(isolated(context, batch, reported, lease).await),
    };
    let failures = failures(context, batch, ledger, reported);
    let failure = |position| failures.iter().find(|(of, _)| *of == position).map(|(_, failure)| &failure.report);
    let named = batch.messages().iter().take(reported.done + 1).enumerate();
    let acks: Vec<AckLine<'_>> = named
        .map(|(position, message)| {
            let line = AckLine::new(&message.handle, status(ledger, reported, position));
            AckLine { failure: failure(position), ..line }
        })
        .collect();
    let span = spans::ack(&context.origin, acks.len());
    let answer = context.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;
    // `took` is the time of the last try. With the tries before it, an outage would look like a slow network.
    if let Ok(Acked { took, .. }) = answer {
        context.acks.times.record(took);
    }
    match (&mut closed, &answer) {
        (Some(closed), Ok(_)) => closed.answered(Instant::now() + others_leases(context)),
        (Some(closed), Err(error)) if is_refused(error) => closed.clear(),
        (Some(_), Err(_)) => {}
        (None, _) => {
            // No failure was reported, so only the failed messages are suspect, and their neighbours are not.
            let behind = batch.messages().iter().enumerate().skip(reported.done);
            let failed = behind.filter(|(position, _)| ledger.verdict(*position) == Some(Verdict::Failed));
            let failed: Vec<MessageTrace> = failed.map(|(_, message)| MessageTrace::of(message)).collect();
            context.isolation.suspect(&failed, Instant::now() + others_leases(context));
        }
    }
    // Only now may polls for batches begin again: the quarantine is in force.
    drop(closed);
    spans::acked(&span, &classify(&answer));
    answer
}

/// Why messages of the batch failed or were rejected. For a message that was still running at the deadline, or whose
/// run panicked, no reason has been recorded yet. A message that was not started, or that the shutdown stopped, has none,
/// although a service without releases counts a failure.
fn failures(context: &Context, batch: &Deliveries, ledger: &Ledger, reported: Settlement) -> Vec<(usize, Failure)> {
    let mut failures = batch.failures();
    if let Some(message) = batch.messages().get(reported.done).filter(|_| reported.fails())
        && !failures.iter().any(|(position, _)| *position == reported.done)
        && let Some(outcome) = unrecorded(context, ledger.verdict(reported.done))
    {
        let report = context.failure.report(message, &outcome, false);
        failures.push((reported.done, Failure { report, pause: None }));
    }
    failures
}

/// The outcome of a message whose failure was not recorded.
fn unrecorded(context: &Context, verdict: Option<Verdict>) -> Option<HandlerOutcome<'static>> {
    match verdict {
        Some(Verdict::NotStarted) => None,
        None if context.control.interrupt.is_cancelled() => None,
        None => Some(HandlerOutcome::TimedOut),
        Some(_) => Some(HandlerOutcome::Panicked("outside of the handler")),
    }
}

/// The status of one message in the acknowledgement. Those after the settled prefix fail or are handed back together.
fn status(ledger: &Ledger, reported: Settlement, position: usize) -> AckStatus {
    match (position < reported.done, ledger.verdict(position), reported.stop) {
        (true, Some(Verdict::Rejected), _) => AckStatus::Reject,
        (true, ..) => AckStatus::Success,
        (false, _, Stop::Release) => AckStatus::Release,
        (false, _, Stop::Fail) => AckStatus::Fail,
    }
}

/// Reports the result of an acknowledgement. Returns the number of messages that are settled for good.
fn conclude(
    context: &Context,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    reported: Settlement,
    answer: &Result<Acked, Error>,
) -> usize {
    let result = classify(answer);
    log(context, result, reported);
    let mut gone = 0;
    batch.each_from(0, |position, delivery| {
        let ack = MessageAck::of(&result, position, ledger.verdict(position), reported);
        if let Some(reason) = redelivery_reason(&result, ack) {
            context.remember_reason(delivery, reason);
        }
        gone += usize::from(matches!(ack, MessageAck::Acked | MessageAck::DeadLettered));
        context.emit(&Event::Acknowledged { delivery, result: ack });
    });
    context.emit(&Event::Settled { result, done: reported.done, rest: reported.rest, released: reported.released() });
    gone
}

/// Why a message will be redelivered after this result. The reason of [returned](MessageAck::Returned) messages is
/// recorded elsewhere.
fn redelivery_reason(result: &AckResult<'_>, ack: MessageAck) -> Option<Redelivery> {
    match (ack, result) {
        (MessageAck::Acked | MessageAck::Returned | MessageAck::DeadLettered | MessageAck::Released, _) => None,
        (MessageAck::Late, AckResult::Refused(_)) => Some(Redelivery::LeaseLapsed),
        (MessageAck::Late, _) => Some(Redelivery::LateAck),
        (MessageAck::Unknown, _) => Some(Redelivery::LostAck),
        (MessageAck::Rejected, _) => Some(Redelivery::RejectedAck),
    }
}

/// What is known of an acknowledgement. It is unknown only if it may have taken effect.
fn classify(answer: &Result<Acked, Error>) -> AckResult<'_> {
    match answer {
        Ok(Acked { outcome: AckOutcome { success, fail, .. }, .. }) => {
            AckResult::Answered { success: *success, fail: *fail }
        }
        Err(error) if error.is_unsure() => AckResult::Unknown,
        Err(error) if error.is_lost_lease() => AckResult::Late,
        Err(error) => AckResult::Refused(error),
    }
}

fn log(context: &Context, result: AckResult<'_>, reported: Settlement) {
    let Settlement { done, rest, .. } = reported;
    let Origin { worker, queue, group, .. } = &*context.origin;
    if rest > 0 && context.control.interrupt.is_cancelled() {
        tracing::info!(
            worker,
            queue,
            group,
            rest,
            "the grace period is over, so these messages are redelivered to another worker"
        );
    }
    match result {
        AckResult::Answered { success, .. } if success < done => tracing::warn!(
            worker,
            queue,
            group,
            done,
            success,
            "the service settled fewer messages than were done; the others are redelivered"
        ),
        AckResult::Answered { success, fail } => {
            tracing::debug!(worker, queue, group, success, fail, released = reported.released(), "acknowledged");
        }
        AckResult::Late => {
            tracing::warn!(
                worker,
                queue,
                group,
                done,
                rest,
                "the acknowledgement arrived too late, so the batch is redelivered"
            );
        }
        AckResult::Unknown => tracing::warn!(
            worker,
            queue,
            group,
            done,
            rest,
            "the reply to the acknowledgement was lost, so the batch may be redelivered"
        ),
        AckResult::Refused(error) => {
            tracing::warn!(worker, queue, group, done, rest, %error, "the acknowledgement was refused, so the batch is redelivered");
        }
    }
}
