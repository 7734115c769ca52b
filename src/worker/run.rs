//! One message through its handler: turn, budget, call, contain, classify, report.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    delivery::Delivery,
    error::HandlerError,
    event::{Event, Outcome},
    gate::Permit,
    lanes::{Head, Place},
    ledger::Verdict,
};

/// A message that is to be handled.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) position: usize,
    pub(crate) delivery: Delivery,
    pub(crate) permit: Permit,
    /// Its place in its lane, where there are lanes.
    pub(crate) place: Option<Place>,
    /// Ends the run: the deadline or the end of the grace period has come.
    pub(crate) stop: CancellationToken,
    /// The batch is acknowledged: a message that still waits for its lane comes again.
    pub(crate) settled: CancellationToken,
}

/// How a handler's future ended.
enum Ended {
    Answered(Result<(), HandlerError>),
    Panicked(String),
    Stopped,
}

/// Runs one message. The permit goes back when the handler has ended and its copy, if any, was sent.
pub(crate) async fn run(shared: Arc<Shared>, job: Job) -> (usize, Verdict) {
    let Job { position, delivery, permit, place, stop, settled } = job;
    let head = match place {
        None => None,
        Some(place) => match turn(place, &stop, &settled).await {
            Ok(head) => Some(head),
            Err(verdict) => {
                shared.observers.tell(&Event::Skipped);
                return (position, verdict);
            }
        },
    };
    // Giving up at the head of a lane stops the lane, so it has to be opened again as after a failure.
    let given_up = if head.is_some() { Verdict::Failed } else { Verdict::NotStarted };
    let Some(remembered) = recall(&shared, &delivery, &stop, &settled).await else {
        shared.observers.tell(&Event::Skipped);
        return (position, given_up);
    };
    if remembered {
        shared.observers.tell(&Event::Remembered);
        if let Some(head) = head {
            head.done();
        }
        return (position, Verdict::Done);
    }
    // Asked last: waiting for the lane, or for an earlier run, may have used up the lease.
    let left = delivery.remaining();
    if stop.is_cancelled() || left.is_zero() || left < shared.least_budget() {
        shared.observers.tell(&Event::Skipped);
        return (position, given_up);
    }
    shared.observers.tell(&Event::Started);
    let started = Instant::now();
    let ended = handle(&shared, delivery.clone(), &stop).await;
    let took = started.elapsed();
    shared.control.latency.record(took);
    let verdict = settle(&shared, &delivery, ended, took).await;
    if let (Some(head), Verdict::Done) = (head, verdict) {
        head.done();
    }
    drop(permit);
    (position, verdict)
}

/// Waits for the head of the lane. A message that gives up waiting stops its lane as a failed one does.
async fn turn(place: Place, stop: &CancellationToken, settled: &CancellationToken) -> Result<Head, Verdict> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Verdict::Failed),
        () = settled.cancelled() => Err(Verdict::Failed),
        head = place.turn() => head.ok_or(Verdict::NotStarted),
    }
}

/// Whether the handler has succeeded with this message before. Waits for a run of it that is still going on.
///
/// `None` when the batch was acknowledged meanwhile: then the run that the memory speaks of is this very one, which would wait
/// for itself.
async fn recall(
    shared: &Shared,
    delivery: &Delivery,
    stop: &CancellationToken,
    settled: &CancellationToken,
) -> Option<bool> {
    let Some(identity) = shared.identity(delivery.message()) else { return Some(false) };
    tokio::select! {
        biased;
        () = settled.cancelled() => None,
        done = shared.finished.recall(&identity) => Some(done),
        () = stop.cancelled() => Some(false),
    }
}

/// Calls the handler, and ends it when the lease or its own timeout does.
async fn handle(shared: &Shared, delivery: Delivery, stop: &CancellationToken) -> Ended {
    // The async block keeps a panic of the call itself inside as well.
    let call = AssertUnwindSafe(async { shared.handler.handle(delivery).await }).catch_unwind();
    let timeout = async {
        match shared.settings.handler_timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = call => match answer {
            Ok(answer) => Ended::Answered(answer),
            Err(panic) => Ended::Panicked(panic_message(&*panic)),
        },
        () = stop.cancelled() => Ended::Stopped,
        () = timeout => Ended::Stopped,
    }
}

async fn settle(shared: &Shared, delivery: &Delivery, ended: Ended, took: std::time::Duration) -> Verdict {
    let outcome = match &ended {
        Ended::Answered(Ok(())) => Outcome::Done,
        Ended::Answered(Err(error)) => Outcome::Failed(error),
        Ended::Panicked(message) => Outcome::Panicked(message),
        Ended::Stopped if shared.control.interrupt.is_cancelled() => Outcome::Interrupted,
        Ended::Stopped => Outcome::TimedOut,
    };
    log(shared, &outcome, took);
    shared.observers.tell(&Event::Handled { outcome, took });
    shared.failure.resolve(delivery.message(), &outcome).await
}

fn log(shared: &Shared, outcome: &Outcome<'_>, took: std::time::Duration) {
    let worker = shared.settings.name.as_str();
    match outcome {
        Outcome::Done => tracing::debug!(worker, ?took, "handled"),
        Outcome::Failed(error) => tracing::warn!(worker, ?took, outcome = outcome.name(), %error, "the handler failed"),
        Outcome::Panicked(panic) => tracing::error!(worker, ?took, panic, "the handler panicked"),
        Outcome::TimedOut => tracing::warn!(worker, ?took, "the handler was stopped: its time was over"),
        Outcome::Interrupted => tracing::warn!(worker, ?took, "the handler was stopped: the grace period was over"),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "a panic without a message".to_owned(),
    }
}
