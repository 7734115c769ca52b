//! Calls a handler, for one message or for a batch: contains panics, enforces the timeout, and measures the duration.

use std::{
    any::Any,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    contain::{contained, discard, panic_text, until_panic},
    worker::{
        dispatch::collector::{CallMember, PendingCall, ReadyCall},
        handler::{
            Handler,
            batch::BatchHandler,
            delivery::Delivery,
            error::HandlerError,
            kind::HandlerKind,
            outcome::{CallEnd, CallOutcome, HandlerOutcome},
        },
        observe::{event::Event, spans},
        pipeline::context::Context,
    },
};

/// The number of results of a batch handler is not the number of its messages.
#[derive(Debug, thiserror::Error)]
#[error(
    "the batch handler returned {verdicts} results for {messages} messages: it has to return one for each, in their order, \
     so none of them counts as done"
)]
struct WrongVerdicts {
    messages: usize,
    verdicts: usize,
}

/// The result of a batch handler.
type Answer = Result<Vec<Result<(), HandlerError>>, HandlerError>;

/// Calls the handler with a message, and ends the call at `stop` or at the handler timeout. `now` is the start of the
/// call.
pub(crate) async fn single(
    context: &Context,
    handler: &dyn Handler,
    delivery: Delivery,
    now: Instant,
    stop: &CancellationToken,
) -> CallOutcome {
    context.emit(&Event::Started { delivery: &delivery });
    let span = spans::process(&delivery);
    let timed = pin!(timed(context, || handler.handle(delivery), now, stop));
    let (ended, took) = timed.instrument(span.clone()).await;
    CallOutcome { ended: ended.map_or_else(|ended| ended, CallEnd::Answered), took, span }
}

/// Takes part in the call of a batch handler. `None` if the handler was not called with this message, because the lease
/// ended, its batch was acknowledged, or too little time was left.
pub(crate) async fn together(
    context: &Arc<Context>,
    delivery: &Delivery,
    mut joined: PendingCall,
) -> Option<CallOutcome> {
    let signals = delivery.signals();
    // A message must not use up the time that its call needs by waiting for others.
    let linger_until = joined.linger_until.map(|until| until.min(delivery.deadline() - context.call_budget()));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            // First, so that an outcome which has arrived counts, even if the time is over at the same moment.
            called = &mut joined.answer => return called.ok(),
            () = signals.stop.cancelled(), if !joined.stop.is_cancelled() => {
                if joined.withdraw() {
                    return None;
                }
                joined.stop.cancel();
            }
            () = signals.settled.cancelled(), if open => {
                if joined.withdraw() {
                    return None;
                }
                open = false;
            }
            () = linger_ends(context, linger_until), if open => {
                if let Some(complete) = joined.close() {
                    begin(context, complete);
                }
                open = false;
            }
        }
    }
}

/// Waits until a message has waited long enough for others; forever if it does not linger.
async fn linger_ends(context: &Context, until: Option<Instant>) {
    let Some(until) = until else { return std::future::pending().await };
    tokio::select! {
        () = sleep_until(until) => {}
        () = context.control.stopping.cancelled() => {}
    }
}

/// Starts the call of a batch handler, in a separate task because the call belongs to none of its messages alone.
pub(crate) fn begin(context: &Arc<Context>, complete: ReadyCall) {
    let HandlerKind::Batch(handler) = &context.dispatch.handler else { return };
    let ReadyCall { mut members, stop } = complete;
    // Dropping a member tells its run that the handler was not called.
    let now = Instant::now();
    members.retain(|member| !member.answer.is_closed() && context.has_time(&member.delivery, now));
    if members.is_empty() {
        return;
    }
    let (context, handler) = (context.clone(), handler.clone());
    tokio::spawn(async move { call_together(&context, &*handler, members, &stop).await });
}

/// Calls a batch handler, and sends each message its part of the result.
async fn call_together(
    context: &Context,
    handler: &dyn BatchHandler,
    members: Vec<CallMember>,
    stop: &CancellationToken,
) {
    let deliveries: Vec<Delivery> = members.iter().map(|member| member.delivery.clone()).collect();
    for delivery in &deliveries {
        context.emit(&Event::Started { delivery });
    }
    let count = members.len();
    let span = spans::process_batch(&context.origin, count);
    deliveries.iter().for_each(|delivery| spans::link(&span, delivery));
    let call = || handler.handle_batch(deliveries);
    let (ended, took) = timed(context, call, Instant::now(), stop).instrument(span.clone()).await;
    let outcome = match &ended {
        Ok(Ok(_)) => HandlerOutcome::Done,
        Ok(Err(error)) => HandlerOutcome::Failed(error),
        Err(ended) => ended.outcome(|| context.control.interrupt.is_cancelled()),
    };
    spans::processed(&span, &outcome);
    let shares = shares(ended, count);
    for (member, ended) in members.into_iter().zip(shares) {
        // The run may have ended.
        let _ = member.answer.send(CallOutcome { ended, took, span: Span::none() });
    }
}

/// The end of a call for each of its messages.
fn shares(ended: Result<Answer, CallEnd>, messages: usize) -> Vec<CallEnd> {
    let whole = match ended {
        Ok(Ok(verdicts)) if verdicts.len() == messages => return verdicts.into_iter().map(CallEnd::Answered).collect(),
        Ok(Ok(verdicts)) => {
            let error = WrongVerdicts { messages, verdicts: verdicts.len() };
            CallEnd::Answered(Err(HandlerError::retry(error)))
        }
        Ok(Err(error)) => CallEnd::Answered(Err(error)),
        Err(ended) => ended,
    };
    vec![whole; messages]
}

/// Runs a call until it returns, panics, or is ended by `stop` or the handler timeout.
async fn timed<'a, T>(
    context: &Context,
    begin: impl FnOnce() -> Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    started: Instant,
    stop: &CancellationToken,
) -> (Result<T, CallEnd>, Duration) {
    let ended = match contained(begin) {
        Ok(mut call) => {
            let ended = until_ended(context, pin!(until_panic(call.as_mut())), stop).await;
            // Dropping a stopped call may panic.
            discard(call);
            ended
        }
        Err(panic) => Err(CallEnd::Panicked(panic)),
    };
    let took = started.elapsed();
    context.control.latency.record(took);
    (ended, took)
}

/// Waits for a call, and stops it at its deadline.
async fn until_ended<T>(
    context: &Context,
    mut call: Pin<&mut impl Future<Output = Result<T, Box<dyn Any + Send>>>>,
    stop: &CancellationToken,
) -> Result<T, CallEnd> {
    let answered = match futures_util::poll!(&mut call) {
        // A call that returns without waiting needs no timer.
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => unless_stopped(context, call, stop).await,
    };
    match answered {
        Some(answer) => answer.map_err(|panic| CallEnd::Panicked(panic_text(panic))),
        None => Err(CallEnd::Stopped),
    }
}

/// The result of a call, unless `stop` or the handler timeout ends it first.
async fn unless_stopped<F: Future>(context: &Context, call: F, stop: &CancellationToken) -> Option<F::Output> {
    let timeout = async {
        match context.settings.handler_timeout {
            Some(timeout) => sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        // First, so that a result counts even in the moment of the stop.
        answer = call => Some(answer),
        () = stop.cancelled() => None,
        () = timeout => None,
    }
}
