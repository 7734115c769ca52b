//! The task that waits for the next moment at which something is due: the end of a lease, the end of a delay, retention, a tick of a
//! schedule.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use crate::broker::{
    BrokerError,
    embedded::{
        background::{
            delays::end_delays,
            retention::{drop_settled, expire},
            ticks::send_due,
        },
        command::Command,
        core::Core,
    },
};

/// The delay before trying again after the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Waits for due work and does it, until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        let target = {
            let mut state = core.lock();
            let target = state.next_alarm(&core.clock, &core.wall);
            // Stored before the lock is released. A task that then adds an earlier deadline finds the target and wakes the timer.
            // If it was stored later, a deadline added in between would find no target, and the timer would sleep past it.
            state.timer_target = Some(target.unwrap_or_else(far_future));
            target
        };
        tokio::select! {
            () = sleep_until(target.unwrap_or_else(far_future)) => {}
            () = core.timer.notified() => {}
        }
        // While the timer works it need not be woken, because it looks again.
        core.lock().timer_target = None;
        if let Err(error) = tick(&core).await {
            if error.is_already_logged() {
                tracing::debug!(%error, "a due lease, delay, expiry or tick could not be stored; it will be tried again");
            } else {
                tracing::warn!(%error, "a due lease, delay, expiry or tick could not be stored; it will be tried again");
            }
            sleep(RETRY_DELAY).await;
        }
    }
}

fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(30 * 86_400)
}

/// Does the due work, one bounded piece of each kind. A failure of one kind does not stop the others.
async fn tick(core: &Core) -> Result<(), BrokerError> {
    let mut outcome = Ok(());
    let lapsed = {
        let mut state = core.lock();
        state.notice_pause();
        state.take_lapsed(Instant::now())
    };
    // One command for each lease. They are still committed together, and on a full disk the ones that fit succeed.
    let lapsed: Vec<_> = lapsed.into_iter().map(|lease| core.submit(Command::EndLeases(vec![lease]))).collect();
    for lease in lapsed {
        outcome = outcome.and(lease.outcome().await);
    }
    let delay_queues = core.lock().take_due_delay_queues(core.clock.now_ms());
    for (delay_queue, stream) in delay_queues {
        outcome = outcome.and(end_delays(core, delay_queue, stream).await);
    }
    let streams = core.lock().take_expiring(&core.clock);
    for (stream, low, until_ms) in streams {
        outcome = outcome.and(expire(core, stream, low, until_ms).await);
    }
    let settled = core.lock().take_due_settled_checks(Instant::now());
    for stream in settled {
        outcome = outcome.and(drop_settled(core, stream).await);
    }
    outcome.and(send_due(core).await)
}
