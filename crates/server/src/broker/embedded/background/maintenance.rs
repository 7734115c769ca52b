//! Has the store do its maintenance, in bounded pieces between commits, and probes a store that fails until it works again.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, yield_now},
    time::sleep,
};

use crate::{
    broker::embedded::{core::Core, health::watch},
    store::StoreError,
};

/// The delay before trying again after the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The delay on a full disk. Shorter, because deleted messages make room and senders are waiting for it.
const RETRY_DELAY_WHEN_FULL: Duration = Duration::from_secs(1);

/// Runs maintenance whenever the store needs it, until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        maintain(&core).await;
        if core.health.refuses() || core.health.cannot_read() {
            sleep(RETRY_DELAY).await;
            probe(&core).await;
        } else {
            // A notification that came during the work is not lost: `Notify` keeps one.
            core.maintenance.notified().await;
        }
    }
}

/// Runs maintenance until nothing is left to do. After a failure it waits and tries again.
async fn maintain(core: &Core) {
    let mut is_logged = false;
    while core.store.needs_maintenance() {
        match step(core).await {
            // Other tasks get their turn between two steps.
            Ok(true) => yield_now().await,
            Ok(false) => return,
            Err(error) => {
                // A full disk is reported when a change is refused for it, so it is not reported here.
                if error.is_full() {
                    tracing::debug!(%error, "there is no room for maintenance");
                } else if !std::mem::replace(&mut is_logged, true) {
                    tracing::warn!(%error, "maintenance of the store failed; it will be tried again");
                }
                sleep(if error.is_full() { RETRY_DELAY_WHEN_FULL } else { RETRY_DELAY }).await;
                probe(core).await;
            }
        }
    }
}

/// Does one piece of maintenance and records in `health` how it went.
async fn step(core: &Core) -> Result<bool, StoreError> {
    let asked = core.ask_store(|store| store.maintain());
    let tidied = watch(asked, || core.health.index_is_stuck(core.clock.now_ms())).await;
    // A panic ended the call before the store could record its cause.
    let panicked = tidied.as_ref().err().filter(|error| error.cause().is::<JoinError>()).cloned();
    core.health.indexed(core.store.index_error().or(panicked).as_ref(), core.clock.now_ms());
    if let Some(error) = core.store.disk_full() {
        core.health.disk_is_full(&error, core.clock.now_ms());
    }
    tidied
}

/// Asks a store that failed whether it works again. Clients stop sending to a server that is not ready, so no request would notice.
async fn probe(core: &Core) {
    if core.health.refuses() {
        probe_commits(core).await;
    }
    if core.health.cannot_read() {
        probe_reads(core).await;
    }
}

async fn probe_commits(core: &Core) {
    match core.ask_store(|store| store.probe()).await {
        Ok(()) => core.health.would_commit(),
        Err(error) => tracing::debug!(%error, "the store does not work yet"),
    }
}

/// If messages can be read again, messages that were set aside as unreadable are looked for again.
async fn probe_reads(core: &Core) {
    match core.ask_store(|store| store.probe_reads()).await {
        Ok(is_there) => {
            core.health.reads_again();
            if is_there {
                core.lock().retry_unreadable();
                core.timer.notify_one();
            }
        }
        Err(error) => tracing::debug!(%error, "messages cannot be read yet"),
    }
}
