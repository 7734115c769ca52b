//! One message through its handler: turn, budget, call, contain, classify, report.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc, task::Poll, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::Span;

use crate::{
    contain::panic_text,
    message::FailureReport,
    worker::{
        dedup::{
            in_progress::KnownRun,
            redelivery::{self, Redelivery},
        },
        dispatch::{
            collector::Seat,
            key_queues::{Head, Place},
        },
        failure::Resolved,
        handler::{
            delivery::{Delivery, Failure, Signals},
            error::{FailureKind, HandlerError},
            kind::HandlerKind,
            outcome::{Called, Ended, HandlerOutcome},
        },
        observe::{event::Event, spans},
        pipeline::{call, context::Shared},
        settlement::ledger::Verdict,
    },
};

/// A message that is to be handled.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    /// Its place in its lane, where there are lanes, until its run begins.
    pub(crate) place: Option<Place>,
    /// Its seat in a call of several messages, where those are handled together.
    pub(crate) seat: Option<Seat>,
    /// It may be what brings calls down, so it gets one of its own.
    pub(crate) alone: bool,
}

/// Runs one message: done when the handler has ended and its copy, if any, was sent.
pub(crate) async fn run(shared: &Arc<Shared>, mut job: Job) -> Verdict {
    let contained = AssertUnwindSafe(verdict(shared, &mut job)).catch_unwind().await;
    let verdict = contained.unwrap_or_else(|panic| panicked(shared, &job.delivery, panic));
    // Whatever kept it from joining, the others of its call need not wait for it.
    if let Some(complete) = job.seat.as_mut().and_then(|seat| seat.leave(verdict == Verdict::Done)) {
        call::begin(shared, complete);
    }
    verdict
}

/// A run that panicked outside of its handler has failed.
fn panicked(shared: &Shared, delivery: &Delivery, panic: Box<dyn Any + Send>) -> Verdict {
    let (worker, panic) = (shared.settings.name.as_str(), panic_text(panic));
    tracing::error!(worker, panic, "the run of a message panicked outside of its handler: it counts as failed");
    shared.expect(delivery, Redelivery::Panicked);
    Verdict::Failed
}

async fn verdict(shared: &Arc<Shared>, job: &mut Job) -> Verdict {
    let head = match job.place.take() {
        None => None,
        Some(place) => match aside(shared, &mut job.seat, turn(place, job.delivery.signals())).await {
            Some(head) => Some(head),
            None => {
                shared.skipped(&job.delivery);
                return Verdict::NotStarted;
            }
        },
    };
    let begun = match begin_at_once(shared, &job.delivery) {
        Some(begun) => begun,
        None => aside(shared, &mut job.seat, begin(shared, &job.delivery)).await,
    };
    let begun = match begun {
        Begun::Known(run) => Some(run),
        Begun::Unknown => None,
        Begun::Succeeded => {
            shared.tell(&Event::Remembered { delivery: &job.delivery });
            if let Some(head) = head {
                head.done();
            }
            return Verdict::Done;
        }
        Begun::GivenUp => {
            shared.skipped(&job.delivery);
            return Verdict::NotStarted;
        }
    };
    if let Some(report) = shared.used_up.recall(job.delivery.message()) {
        return fail_again(shared, &job.delivery, report);
    }
    let Some(called) = call(shared, job).await else {
        shared.skipped(&job.delivery);
        return Verdict::NotStarted;
    };
    let handled = called.ended.is_success();
    let verdict = settle(shared, &job.delivery, called).await;
    if let (Some(run), Verdict::Done) = (begun, verdict) {
        match handled || shared.settings.unique_attribute.is_none() {
            true => run.succeeded(),
            // Before the run ends: a redelivery may wait for that.
            false => shared.passed_on.note(job.delivery.message()),
        }
    }
    if let (Some(head), true) = (head, verdict.settles()) {
        head.done();
    }
    verdict
}

/// Waits for something while the others of a shared call go on without this message, where they may.
async fn aside<T>(shared: &Arc<Shared>, seat: &mut Option<Seat>, waiting: impl Future<Output = T>) -> T {
    tokio::pin!(waiting);
    if let Poll::Ready(ready) = futures_util::poll!(&mut waiting) {
        return ready;
    }
    if let Some(complete) = seat.as_mut().and_then(Seat::step_aside) {
        call::begin(shared, complete);
    }
    waiting.await
}

/// Has the handler called, if there is enough time left. Asked last: waiting for the lane, or for an earlier run, may have used
/// up the lease.
async fn call(shared: &Arc<Shared>, job: &mut Job) -> Option<Called> {
    let signals = job.delivery.signals();
    let now = Instant::now();
    if signals.stop.is_cancelled() || !shared.has_time(&job.delivery, now) {
        return None;
    }
    if let Some(reason) = job.delivery.undecodable() {
        let ended = Ended::Answered(Err(HandlerError::undecodable(format!("the message cannot be read: {reason}"))));
        return Some(Called { ended, took: Duration::ZERO, span: Span::none() });
    }
    let delivery = job.delivery.clone();
    match (&shared.handler, &mut job.seat) {
        (HandlerKind::Batch(_), Some(seat)) => {
            let (joined, complete) = if job.alone { seat.alone(delivery) } else { seat.join(delivery) };
            complete.into_iter().for_each(|complete| call::begin(shared, complete));
            call::together(shared, &job.delivery, joined).await
        }
        (HandlerKind::Batch(_), None) => None,
        (HandlerKind::Single(handler), _) => Some(call::single(shared, &**handler, delivery, now, &signals.stop).await),
    }
}

/// Waits for the head of the lane. A message that gives up waiting stops its lane as a failed one does.
async fn turn(place: Place, signals: &Signals) -> Option<Head> {
    tokio::select! {
        biased;
        () = signals.stop.cancelled() => None,
        () = signals.settled.cancelled() => None,
        head = place.turn() => head,
    }
}

/// How the run of a message begins.
enum Begun<'a> {
    /// It is the one run of its message.
    Known(KnownRun<'a>),
    /// Nothing tells its message from others.
    Unknown,
    /// The handler has succeeded with it before, or it was passed on.
    Succeeded,
    /// Time was over, or its batch acknowledged, while it waited for an earlier run.
    GivenUp,
}

/// Begins the run of a message. `None` while one of it is still going on; nearly always there is none.
fn begin_at_once<'a>(shared: &'a Shared, delivery: &Delivery) -> Option<Begun<'a>> {
    let Some(identity) = shared.identity(delivery.message()) else { return Some(Begun::Unknown) };
    let signals = delivery.signals();
    if signals.settled.is_cancelled() || signals.stop.is_cancelled() {
        return Some(Begun::GivenUp);
    }
    let begun = shared.known_runs.begin_at_once(identity, delivery.batch()).ok()?;
    Some(unless_passed_on(shared, delivery, begun))
}

/// The same, waiting for the run that is going on.
async fn begin<'a>(shared: &'a Shared, delivery: &Delivery) -> Begun<'a> {
    let Some(identity) = shared.identity(delivery.message()) else { return Begun::Unknown };
    let signals = delivery.signals();
    tokio::select! {
        biased;
        () = signals.settled.cancelled() => Begun::GivenUp,
        () = signals.stop.cancelled() => Begun::GivenUp,
        run = shared.known_runs.begin(identity, delivery.batch()) => unless_passed_on(shared, delivery, run),
    }
}

/// A message that was passed on needs no run, either.
fn unless_passed_on<'a>(shared: &Shared, delivery: &Delivery, run: Option<KnownRun<'a>>) -> Begun<'a> {
    let may_be = shared.settings.unique_attribute.is_some();
    let run = run.filter(|_| !(may_be && shared.passed_on.contains(delivery.message())));
    run.map_or(Begun::Succeeded, Begun::Known)
}

async fn settle(shared: &Shared, delivery: &Delivery, Called { ended, took, span }: Called) -> Verdict {
    let outcome = ended.outcome(shared.control.interrupt.is_cancelled());
    spans::processed(&span, &outcome);
    span.in_scope(|| log(shared, &outcome, took));
    shared.tell(&Event::Handled { delivery, outcome, took });
    let verdict = match outcome {
        HandlerOutcome::Done => Verdict::Done,
        _ => resolve(shared, delivery, &outcome).await,
    };
    let reason = match (verdict, &outcome) {
        (Verdict::Failed, outcome) => redelivery::reason(outcome),
        (Verdict::NotStarted, HandlerOutcome::Failed(_)) => Some(Redelivery::HandedBack),
        // One that was interrupted is redelivered to another worker.
        _ => None,
    };
    if let Some(reason) = reason {
        shared.expect(delivery, reason);
    }
    verdict
}

/// Carries out what the policy says of a message that was not done, and notes why it was not for the acknowledgement.
async fn resolve(shared: &Shared, delivery: &Delivery, outcome: &HandlerOutcome<'_>) -> Verdict {
    let resolved = shared.failure.resolve(delivery.message(), outcome).await;
    note(shared, delivery, resolved)
}

/// A message whose last attempt has failed before: it is not run once more.
fn fail_again(shared: &Shared, delivery: &Delivery, report: FailureReport) -> Verdict {
    let worker = shared.settings.name.as_str();
    tracing::info!(worker, "a message whose attempts are used up was redelivered: it fails again without a run");
    shared.tell(&Event::Skipped { delivery });
    shared.expect(delivery, Redelivery::Failed);
    note(shared, delivery, shared.failure.give_up(report, true))
}

/// Notes why a message failed or was rejected, for its acknowledgement and for its redelivery.
fn note(shared: &Shared, delivery: &Delivery, resolved: Resolved) -> Verdict {
    let Resolved { verdict, report, loops, exhausted } = resolved;
    if let Some(report) = report {
        if exhausted && verdict == Verdict::Failed {
            shared.used_up.note(delivery.message(), &report);
        }
        let pause = loops.then(|| shared.rejected_again(delivery));
        delivery.note_failure(Failure { report, pause });
    }
    verdict
}

fn log(shared: &Shared, outcome: &HandlerOutcome<'_>, took: Duration) {
    let worker = shared.settings.name.as_str();
    match outcome {
        HandlerOutcome::Done => tracing::debug!(worker, ?took, "handled"),
        HandlerOutcome::Failed(error) if error.kind() == FailureKind::Release => {
            tracing::info!(worker, ?took, %error, "the handler hands the message back");
        }
        HandlerOutcome::Failed(error) => {
            tracing::warn!(worker, ?took, outcome = outcome.name(), %error, "the handler failed")
        }
        HandlerOutcome::Panicked(panic) => tracing::error!(worker, ?took, panic, "the handler panicked"),
        HandlerOutcome::TimedOut => tracing::warn!(worker, ?took, "the handler was stopped: its time was over"),
        HandlerOutcome::Interrupted => {
            tracing::warn!(worker, ?took, "the handler was stopped: the grace period was over")
        }
    }
}
