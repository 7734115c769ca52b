//! The end of a worker: the last polls, the running handlers, and the last acknowledgements.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    client::Error,
    text::brief,
    worker::{fetch::polls::PollScope, pipeline::context::Context},
};

/// How long the service may take to end the last polls after the grace period.
const END_POLLS_TIME: Duration = Duration::from_secs(2);

/// How long acknowledgements may take after the last handler was stopped.
const LAST_ACKS_TIME: Duration = Duration::from_secs(5);

/// Waits for the last polls and for everything that has started, within the grace period. Returns whether all of it
/// finished.
pub(crate) async fn drain(context: &Context, pollers: JoinSet<Result<(), Error>>) -> bool {
    let all = async {
        wind_down(context, pollers).await;
        // Closed after the polls, because until then pollers add batches.
        context.batches.close();
        context.batches.wait().await;
    };
    tokio::pin!(all);
    let grace = context.control.grace();
    let finished = tokio::select! {
        biased;
        () = all.as_mut() => true,
        () = context.control.interrupt.cancelled() => false,
        () = sleep(grace) => {
            tracing::warn!(worker = context.settings.name, grace = %brief(grace), "the grace period is over, so running handlers are stopped");
            false
        }
    };
    if finished {
        return !context.control.interrupt.is_cancelled();
    }
    context.control.interrupt.cancel();
    if timeout(LAST_ACKS_TIME, all).await.is_err() {
        tracing::error!(
            worker = context.settings.name,
            in_flight = context.control.inflight.in_flight(),
            "gave up waiting for the last handlers and acknowledgements; their messages are redelivered when their leases expire"
        );
    }
    false
}

/// Waits for the last polls of a worker that stops, and asks the service to end them. Their messages are passed on.
/// Polls that are not answered at the end of the grace period are given up, with a warning.
async fn wind_down(context: &Context, mut pollers: JoinSet<Result<(), Error>>) {
    // If a poller failed, nobody has cancelled this yet.
    context.control.stopping.cancel();
    let are_in = async { while pollers.join_next().await.is_some() {} };
    let end = async {
        context.polling.in_flight.end(&*context.source, PollScope::All).await;
        std::future::pending::<()>().await;
    };
    let over = async {
        let grace = sleep(context.control.grace());
        let _ = context.control.interrupt.run_until_cancelled(grace).await;
        if context.source.extensions().end_poll() {
            sleep(END_POLLS_TIME).await;
        }
    };
    tokio::select! {
        biased;
        () = are_in => return,
        () = end => {}
        () = over => {}
    }
    let polls = context.polling.in_flight.count();
    context.control.counters.gave_up(polls);
    tracing::warn!(
        worker = context.settings.name,
        polls,
        "polls were not answered within the grace period and are given up; messages that the service leased to them are redelivered \
         after their ack_wait, and count as failed"
    );
    // Awaited, because the pollers hold capacity until they have ended.
    pollers.shutdown().await;
}
