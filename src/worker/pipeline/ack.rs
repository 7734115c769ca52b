//! The one acknowledgement of a batch: in the order of consumption, up to the first message that is not settled.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::Instrument;

use crate::{
    client::{AckOutcome, Acked, Error, Extensions},
    message::{AckLine, AckStatus},
    worker::{
        dedup::redelivery::Redelivery,
        fetch::polls::Which,
        handler::{
            delivery::{Deliveries, Failure},
            outcome::HandlerOutcome,
        },
        isolation::{
            Closed,
            quarantine::{Absence, Trace},
        },
        observe::{
            event::{AckResult, Event, MessageAck},
            spans,
        },
        pipeline::context::Shared,
        settlement::{
            lease::Lease,
            ledger::{Ledger, Settlement, Stop, Verdict},
        },
    },
};

/// What is kept of a lease for the acknowledgement itself.
const SEND_TIME: Duration = Duration::from_millis(100);

/// How long a failing acknowledgement waits for the polls before it has them ended.
const SOON: Duration = Duration::from_millis(100);

/// For so many leases what failed may be with other replicas, one after the other, before it comes back here.
const OTHERS_LEASES: u32 = 2;

/// Acknowledges a batch, and tells what came of it.
///
/// It is tried again only while the lease lives. A failing one first waits until no other poll can catch what becomes
/// available again together with other messages; see [`isolation`](crate::worker::isolation).
///
/// Says how many messages are gone for good: the others are redelivered, or may be.
pub(crate) async fn settle(
    shared: &Shared,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    settlement: Settlement,
    lease: Lease,
) -> usize {
    let mut told = ledger.told(settlement, shared.source.extensions());
    if let Some(Failure { pause: Some(pause), .. }) = told.fails().then(|| batch.failure(told.done)).flatten() {
        hold(shared, pause, lease).await;
    }
    let _pending = shared.acks.begin();
    let mut answer = tell(shared, batch, ledger, told, lease).await;
    // Nothing was changed by it: the queue has lost its dead letters, say, or another replica of the service knows no extensions.
    let plain = ledger.told(told, Extensions::NONE);
    if plain != told && answer.as_ref().is_err_and(is_refused) {
        if plain.done < told.done {
            // Nothing takes the rejected message away any more.
            let pause = shared.rejected_again(&batch.at(plain.done));
            hold(shared, pause, lease).await;
        }
        told = plain;
        answer = tell(shared, batch, ledger, told, lease).await;
    }
    conclude(shared, batch, ledger, told, &answer)
}

/// Keeps a message that would be redelivered for ever from that for a while: at most as long as its lease allows.
async fn hold(shared: &Shared, pause: Duration, lease: Lease) {
    let held = lease.stop_at().saturating_duration_since(Instant::now()).min(pause);
    tokio::select! {
        () = sleep(held) => {}
        () = shared.control.stopping.cancelled() => {}
    }
}

/// Sees to it that no poll catches what a failing acknowledgement makes available again together with other messages: from before it goes
/// out, and also when its answer is lost.
async fn isolated<'a>(shared: &'a Shared, batch: &Deliveries, told: Settlement, lease: Lease) -> Closed<'a> {
    // Out of time, a prefix that is acknowledged is worth more than the wait for polls that are out.
    let closed = timeout_at(lease.ends_at() - SEND_TIME, close(shared)).await;
    let mut closed = closed.unwrap_or_else(|_| shared.isolation.close_at_once());
    let held_until = lease.ends_at();
    let failed = batch.messages().iter().skip(told.done).map(Trace::of).collect();
    closed.accuse(failed, Absence { held_until, until: held_until + others_leases(shared) });
    closed
}

fn others_leases(shared: &Shared) -> Duration {
    shared.ack_wait() * OTHERS_LEASES
}

/// Closes the wide polls, and has the service end those that wait.
async fn close(shared: &Shared) -> Closed<'_> {
    let closing = shared.isolation.close();
    tokio::pin!(closing);
    // On a queue with messages they are in soon by themselves.
    if let Ok(closed) = timeout(SOON, closing.as_mut()).await {
        return closed;
    }
    tokio::select! {
        biased;
        closed = closing.as_mut() => closed,
        () = shared.polls.end(&*shared.source, Which::WaitedFor) => closing.await,
    }
}

/// Whether the service has understood the request and says no to it.
fn is_refused(error: &Error) -> bool {
    error.status() == Some(StatusCode::BAD_REQUEST)
        && !error.is_retryable()
        && !error.is_lost_lease()
        && !error.is_unsure()
}

/// Sends the acknowledgement.
async fn tell(
    shared: &Shared,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    told: Settlement,
    lease: Lease,
) -> Result<Acked, Error> {
    let mut closed = match told.fails() {
        false => None,
        true => Some(isolated(shared, batch, told, lease).await),
    };
    let failures = failures(shared, batch, ledger, told);
    let failure = |position| failures.iter().find(|(of, _)| *of == position).map(|(_, failure)| &failure.report);
    let named = batch.messages().iter().take(told.done + 1).enumerate();
    let acks: Vec<AckLine<'_>> = named
        .map(|(position, message)| {
            let line = AckLine::new(&message.handle, status(ledger, told, position));
            AckLine { failure: failure(position), ..line }
        })
        .collect();
    let span = spans::ack(&shared.origin, acks.len());
    let answer = shared.source.acknowledge(&acks, lease.ends_at()).instrument(span.clone()).await;
    // Without the tries before: an outage must not look like a slow network for hours after it.
    if let Ok(Acked { took, .. }) = answer {
        shared.ack_times.record(took);
    }
    match (&mut closed, &answer) {
        (Some(closed), Ok(_)) => closed.answered(Instant::now() + others_leases(shared)),
        (Some(closed), Err(error)) if is_refused(error) => closed.acquit(),
        (Some(_), Err(_)) => {}
        (None, _) => {
            // Where no failure was reported, those that failed are suspects and their neighbours are not.
            let behind = batch.messages().iter().enumerate().skip(told.done);
            let failed = behind.filter(|(position, _)| ledger.verdict(*position) == Some(Verdict::Failed));
            let failed: Vec<Trace> = failed.map(|(_, message)| Trace::of(message)).collect();
            shared.isolation.suspect(&failed, Instant::now() + others_leases(shared));
        }
    }
    drop(closed);
    spans::acked(&span, &classify(&answer));
    answer
}

/// Why messages of the batch failed or were rejected. Of one that was still running when its time was over, or whose
/// run panicked, nobody has said so.
fn failures(shared: &Shared, batch: &Deliveries, ledger: &Ledger, told: Settlement) -> Vec<(usize, Failure)> {
    let mut failures = batch.failures();
    if let Some(message) = batch.messages().get(told.done).filter(|_| told.fails())
        && !failures.iter().any(|(position, _)| *position == told.done)
    {
        let outcome = match ledger.verdict(told.done) {
            None => HandlerOutcome::TimedOut,
            Some(_) => HandlerOutcome::Panicked("outside of the handler"),
        };
        let report = shared.failure.report(message, &outcome, false);
        failures.push((told.done, Failure { report, pause: None }));
    }
    failures
}

fn status(ledger: &Ledger, told: Settlement, position: usize) -> AckStatus {
    match (position < told.done, ledger.verdict(position), told.stop) {
        (true, Some(Verdict::Rejected), _) => AckStatus::Reject,
        (true, ..) => AckStatus::Success,
        (false, _, Stop::Release) => AckStatus::Release,
        (false, _, Stop::Fail) => AckStatus::Fail,
    }
}

/// Tells what came of an acknowledgement; gives how many messages are gone for good.
fn conclude(
    shared: &Shared,
    batch: &Arc<Deliveries>,
    ledger: &Ledger,
    told: Settlement,
    answer: &Result<Acked, Error>,
) -> usize {
    let result = classify(answer);
    log(shared, result, told);
    let mut gone = 0;
    batch.each_from(0, |position, delivery| {
        let ack = MessageAck::of(&result, position, ledger.verdict(position), told);
        if let Some(reason) = comes_again(&result, ack) {
            shared.expect(delivery, reason);
        }
        gone += usize::from(matches!(ack, MessageAck::Acked | MessageAck::DeadLettered));
        shared.tell(&Event::Acknowledged { delivery, result: ack });
    });
    shared.tell(&Event::Settled { result, done: told.done, rest: told.rest, released: told.released() });
    gone
}

/// Why a message comes again whose acknowledgement ended so; those that were [returned](MessageAck::Returned) have a reason of their own.
fn comes_again(result: &AckResult<'_>, ack: MessageAck) -> Option<Redelivery> {
    match (ack, result) {
        (MessageAck::Acked | MessageAck::Returned | MessageAck::DeadLettered | MessageAck::Released, _) => None,
        (MessageAck::Late, AckResult::Refused(_)) => Some(Redelivery::LeaseLapsed),
        (MessageAck::Late, _) => Some(Redelivery::LateAck),
        (MessageAck::Unknown, _) => Some(Redelivery::LostAck),
        (MessageAck::Rejected, _) => Some(Redelivery::RejectedAck),
    }
}

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

fn log(shared: &Shared, result: AckResult<'_>, told: Settlement) {
    let (worker, Settlement { done, rest, .. }) = (shared.settings.name.as_str(), told);
    if rest > 0 && shared.control.interrupt.is_cancelled() {
        tracing::info!(worker, rest, "the grace period is over: these messages are redelivered, to another worker");
    }
    match result {
        AckResult::Answered { success, .. } if success < done => tracing::warn!(
            worker,
            done,
            success,
            "the service settled fewer messages than were done: the others will be redelivered"
        ),
        AckResult::Answered { success, fail } => {
            tracing::debug!(worker, success, fail, released = told.released(), "acknowledged");
        }
        AckResult::Late => {
            tracing::warn!(worker, done, rest, "the acknowledgement came too late: the batch will be redelivered");
        }
        AckResult::Unknown => tracing::warn!(
            worker,
            done,
            rest,
            "the answer to the acknowledgement was lost: the batch may be redelivered"
        ),
        AckResult::Refused(error) => {
            tracing::warn!(worker, done, rest, %error, "the acknowledgement was refused: the batch will be redelivered");
        }
    }
}
