//! One message: waits for its key and for earlier runs, calls the handler, applies the failure policy, and reports.

use std::{
    any::Any,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::Instant;
use tracing::Span;

use crate::{
    contain::{panic_text, until_panic},
    message::FailureReport,
    text::brief,
    worker::{
        dedup::{
            in_progress::ActiveRun,
            redelivery::{self, Redelivery},
        },
        dispatch::{
            collector::Slot,
            key_queues::{KeyGuard, Ticket},
        },
        failure::{self, Resolution},
        handler::{
            delivery::{Delivery, Failure, Signals},
            error::{FailureKind, HandlerError},
            kind::HandlerKind,
            outcome::{CallEnd, CallOutcome, HandlerOutcome},
        },
        observe::{event::Event, log::log_message, spans},
        pipeline::{call, context::Context},
        settlement::ledger::Verdict,
    },
};

/// A message to be handled.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    /// Its place in the queue of its key, until its run starts. Only with ordering by key.
    pub(crate) ticket: Option<Ticket>,
    /// Its slot in the call of a batch handler, if there is one.
    pub(crate) slot: Option<Slot>,
    /// Whether it is called alone, because it may be the message that makes calls fail.
    pub(crate) own_call: bool,
}

/// Processes one message. Returns when the handler has ended and its copy, if any, was sent.
pub(crate) async fn run(context: &Arc<Context>, mut job: Job) -> Verdict {
    let contained = until_panic(pin!(verdict(context, &mut job))).await;
    let verdict = contained.unwrap_or_else(|panic| panicked(context, &job.delivery, panic));
    // The other messages of a shared call no longer wait for this one.
    if let Some(complete) = job.slot.as_mut().and_then(|slot| slot.leave(verdict == Verdict::Done)) {
        call::begin(context, complete);
    }
    verdict
}

/// The verdict of a run that panicked outside of its handler.
fn panicked(context: &Context, delivery: &Delivery, panic: Box<dyn Any + Send>) -> Verdict {
    let panic = panic_text(panic);
    log_message!(
        error,
        delivery,
        panic,
        "processing a message panicked outside of its handler, so the message counts as failed"
    );
    context.remember_reason(delivery, Redelivery::Panicked);
    Verdict::Failed
}

/// Waits for the turn of the message and for earlier runs of it, then calls its handler and applies the failure policy.
async fn verdict(context: &Arc<Context>, job: &mut Job) -> Verdict {
    let key_guard = match job.ticket.take() {
        None => None,
        Some(ticket) => {
            // Boxed like the other waits that few messages have, because the future of every message would have room for them.
            let turn = Box::pin(turn(ticket, job.delivery.signals()));
            match while_others_proceed(context, &mut job.slot, turn).await {
                Some(key_guard) => Some(key_guard),
                None => {
                    context.skipped(&job.delivery);
                    return Verdict::NotStarted;
                }
            }
        }
    };
    let begun = match begin_at_once(context, &job.delivery) {
        Some(begun) => begun,
        None => while_others_proceed(context, &mut job.slot, Box::pin(begin(context, &job.delivery))).await,
    };
    let begun = match begun {
        RunStart::Known(run) => Some(run),
        RunStart::Unknown => None,
        RunStart::Succeeded => {
            context.emit(&Event::Remembered { delivery: &job.delivery });
            if let Some(key_guard) = key_guard {
                key_guard.done();
            }
            return Verdict::Done;
        }
        RunStart::GivenUp => {
            context.skipped(&job.delivery);
            return Verdict::NotStarted;
        }
    };
    // Asked after waiting for an earlier run of the message, because that may have used up the last attempt just now.
    if let Some(report) = context.failure.exhausted.recall(job.delivery.message()) {
        return fail_again(context, &job.delivery, report);
    }
    if context.failure.attempts.is_stuck(job.delivery.message()) {
        return Box::pin(never_returned(context, &job.delivery)).await;
    }
    // Pinned here, as all the way of a message: awaiting a future where it is made moves it, which costs more than a quick handler.
    let called = pin!(call(context, job)).await;
    let Some(called) = called else {
        context.skipped(&job.delivery);
        return Verdict::NotStarted;
    };
    let handled = called.ended.is_success();
    let verdict = pin!(settle(context, &job.delivery, called)).await;
    if verdict.settles() {
        context.failure.attempts.forget(job.delivery.message());
    }
    if let (Some(run), Verdict::Done) = (begun, verdict) {
        match handled || !context.records.has_unique_key() {
            true => run.succeeded(),
            // Recorded before the run ends, because a redelivery may be waiting for that.
            false => context.records.passed_on.record(job.delivery.message()),
        }
    }
    if let (Some(key_guard), true) = (key_guard, verdict.settles()) {
        key_guard.done();
    }
    verdict
}

/// Waits, while the other messages of a shared call continue without this one if they may.
async fn while_others_proceed<T>(
    context: &Arc<Context>,
    slot: &mut Option<Slot>,
    mut waiting: Pin<Box<impl Future<Output = T>>>,
) -> T {
    // Usually there is nothing to wait for. Stepping aside would then start the call without this message.
    if let Poll::Ready(ready) = futures_util::poll!(&mut waiting) {
        return ready;
    }
    if let Some(complete) = slot.as_mut().and_then(Slot::step_aside) {
        call::begin(context, complete);
    }
    waiting.await
}

/// Calls the handler if there is enough time left. Checked last, because the waits for the key and for an earlier run
/// may have used up the lease.
async fn call(context: &Arc<Context>, job: &mut Job) -> Option<CallOutcome> {
    let signals = job.delivery.signals();
    let now = Instant::now();
    if signals.stop.is_cancelled() || !context.has_time(&job.delivery, now) {
        return None;
    }
    if let Some(reason) = job.delivery.undecodable() {
        let ended = CallEnd::Answered(Err(HandlerError::undecodable(format!("the message cannot be read: {reason}"))));
        return Some(CallOutcome { ended, took: Duration::ZERO, span: Span::none() });
    }
    let delivery = job.delivery.clone();
    match (&context.dispatch.handler, &mut job.slot) {
        (HandlerKind::Batch(_), Some(slot)) => {
            let (joined, complete) = if job.own_call { slot.join_own_call(delivery) } else { slot.join(delivery) };
            complete.into_iter().for_each(|complete| call::begin(context, complete));
            Box::pin(call::together(context, &job.delivery, joined)).await
        }
        (HandlerKind::Batch(_), None) => None,
        (HandlerKind::Single(handler), _) => {
            Some(pin!(call::single(context, &**handler, delivery, now, &signals.stop)).await)
        }
    }
}

/// Waits for the head of the key's queue. A message that gives up waiting stops its queue like a failed one.
async fn turn(ticket: Ticket, signals: &Signals) -> Option<KeyGuard> {
    tokio::select! {
        biased;
        () = signals.stop.cancelled() => None,
        () = signals.settled.cancelled() => None,
        key_guard = ticket.turn() => key_guard,
    }
}

/// How the run of a message starts.
enum RunStart<'a> {
    /// It is registered as the only run of its message.
    Known(ActiveRun<'a>),
    /// Nothing tells its message from others.
    Unknown,
    /// The handler has succeeded with it before, or it was passed on.
    Succeeded,
    /// Its time was over, or its batch was acknowledged, while it waited for an earlier run.
    GivenUp,
}

/// Starts the run of a message. `None` while another run of it is in progress, which is rare.
fn begin_at_once<'a>(context: &'a Context, delivery: &Delivery) -> Option<RunStart<'a>> {
    let Some(identity) = context.records.dedup_identity(delivery.message()) else { return Some(RunStart::Unknown) };
    let signals = delivery.signals();
    if signals.settled.is_cancelled() || signals.stop.is_cancelled() {
        return Some(RunStart::GivenUp);
    }
    let begun = context.records.runs.begin_at_once(identity, delivery.batch()).ok()?;
    Some(unless_passed_on(context, delivery, begun))
}

/// Starts the run of a message, after waiting for another run in progress.
async fn begin<'a>(context: &'a Context, delivery: &Delivery) -> RunStart<'a> {
    let Some(identity) = context.records.dedup_identity(delivery.message()) else { return RunStart::Unknown };
    let signals = delivery.signals();
    tokio::select! {
        biased;
        () = signals.settled.cancelled() => RunStart::GivenUp,
        () = signals.stop.cancelled() => RunStart::GivenUp,
        run = context.records.runs.begin(identity, delivery.batch()) => unless_passed_on(context, delivery, run),
    }
}

/// A message that was republished, deferred or parked counts as done.
fn unless_passed_on<'a>(context: &Context, delivery: &Delivery, run: Option<ActiveRun<'a>>) -> RunStart<'a> {
    let may_be = context.records.has_unique_key();
    let run = run.filter(|_| !(may_be && context.records.passed_on.contains(delivery.message())));
    run.map_or(RunStart::Succeeded, RunStart::Known)
}

/// Reports how a call ended, and returns what becomes of its message.
async fn settle(context: &Context, delivery: &Delivery, CallOutcome { ended, took, span }: CallOutcome) -> Verdict {
    let outcome = ended.outcome(|| context.control.interrupt.is_cancelled());
    spans::processed(&span, &outcome);
    span.in_scope(|| log(delivery, &outcome, took));
    context.emit(&Event::Handled { delivery, outcome, took });
    let verdict = match outcome {
        HandlerOutcome::Done => Verdict::Done,
        _ => Box::pin(resolve(context, delivery, &outcome)).await,
    };
    let reason = match (verdict, &outcome) {
        (Verdict::Failed, outcome) => redelivery::reason(outcome),
        (Verdict::NotStarted, HandlerOutcome::Failed(_)) => Some(Redelivery::HandedBack),
        // An interrupted message is redelivered to another worker.
        _ => None,
    };
    if let Some(reason) = reason {
        context.remember_reason(delivery, reason);
    }
    verdict
}

/// Applies the failure policy to a message that was not done.
async fn resolve(context: &Context, delivery: &Delivery, outcome: &HandlerOutcome<'_>) -> Verdict {
    let resolved = context.failure.resolve(delivery.message(), outcome).await;
    record_resolution(context, delivery, resolved)
}

/// Fails a message whose last attempt has failed before, without calling the handler.
fn fail_again(context: &Context, delivery: &Delivery, report: FailureReport) -> Verdict {
    log_message!(
        info,
        delivery,
        reason = &*report.reason,
        "a message whose attempts are used up was redelivered, so it fails again without being handled"
    );
    context.emit(&Event::Skipped { delivery });
    context.remember_reason(delivery, Redelivery::Failed);
    record_resolution(context, delivery, context.failure.give_up(report, true))
}

/// Gives up a message whose handler has blocked its thread in its last attempt, without calling the handler again.
async fn never_returned(context: &Context, delivery: &Delivery) -> Verdict {
    log_message!(
        warn,
        delivery,
        "the attempts of a message are used up, and its handler did not return from the last one"
    );
    context.emit(&Event::Skipped { delivery });
    context.remember_reason(delivery, Redelivery::TimedOut);
    let verdict = resolve(context, delivery, &HandlerOutcome::TimedOut).await;
    if verdict.settles() {
        context.failure.attempts.forget(delivery.message());
    }
    verdict
}

/// Records the result of the failure policy, for the acknowledgement and for the redelivery.
fn record_resolution(context: &Context, delivery: &Delivery, resolved: Resolution) -> Verdict {
    let Resolution { verdict, report, loops, exhausted, pause } = resolved;
    if let Some(report) = report {
        if exhausted && verdict == Verdict::Failed {
            context.failure.exhausted.record(delivery.message(), &report);
        }
        let pause = loops.map(|why| context.rejected_again(delivery, why)).or(pause);
        delivery.record_failure(Failure { report, pause });
    }
    verdict
}

fn log(delivery: &Delivery, outcome: &HandlerOutcome<'_>, took: Duration) {
    let (took, reason) = (brief(took), failure::reason(outcome));
    let outcome_name = outcome.name();
    match outcome {
        HandlerOutcome::Done => log_message!(debug, delivery, outcome = outcome_name, %took, "handled"),
        HandlerOutcome::Failed(error) => match error.kind() {
            // The handler says that the message is all right.
            FailureKind::Release => {
                log_message!(info, delivery, outcome = outcome_name, %took, %error, "the handler released the message");
            }
            FailureKind::Defer(_) => {
                log_message!(info, delivery, outcome = outcome_name, %took, %error, "the handler deferred the message");
            }
            _ if error.is_timed_out() => {
                log_message!(warn, delivery, outcome = outcome_name, reason, %took, %error, "the handler took too long");
            }
            _ => log_message!(warn, delivery, outcome = outcome_name, reason, %took, %error, "the handler failed"),
        },
        HandlerOutcome::Panicked(panic) => {
            log_message!(error, delivery, outcome = outcome_name, reason, %took, panic, "the handler panicked");
        }
        HandlerOutcome::TimedOut => {
            log_message!(warn, delivery, outcome = outcome_name, reason, %took, "the handler was stopped at its deadline");
        }
        HandlerOutcome::Interrupted => log_message!(
            warn, delivery, outcome = outcome_name, reason, %took,
            "the handler was stopped at the end of the grace period"
        ),
    }
}
