//! The task that has the store do what no answer waits for, in bounded pieces between commits, and that asks a store that fails
//! whether it works again.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, yield_now},
    time::sleep,
};

use crate::{
    broker::embedded::{core::Core, health::watch},
    store::StoreError,
};

/// How long to wait after the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The same when the disk is full: what is deleted then makes room, and somebody waits for it.
const RETRY_DELAY_WHEN_FULL: Duration = Duration::from_secs(1);

/// Tidies whenever the store wants it, until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        maintain(&core).await;
        if core.health.refuses() || core.health.cannot_read() {
            sleep(RETRY_DELAY).await;
            probe(&core).await;
        } else {
            core.maintenance.notified().await;
        }
    }
}

/// Tidies until nothing is left to do, or once if that fails.
async fn maintain(core: &Core) {
    let mut told = false;
    while core.store.needs_maintenance() {
        match step(core).await {
            Ok(true) => yield_now().await,
            Ok(false) => return,
            Err(error) => {
                // That the disk is full is told as soon as anything is refused for it.
                if error.is_full() {
                    tracing::debug!(%error, "there is no room to tidy up");
                } else if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%error, "the store could not tidy up; it will be tried again");
                }
                sleep(if error.is_full() { RETRY_DELAY_WHEN_FULL } else { RETRY_DELAY }).await;
                probe(core).await;
            }
        }
    }
}

/// Does a piece of it.
async fn step(core: &Core) -> Result<bool, StoreError> {
    let asked = core.ask_store(|store| store.maintain());
    let tidied = watch(asked, || core.health.index_is_stuck(core.clock.now_ms())).await;
    // What panicked did not come as far as to note why.
    let panicked = tidied.as_ref().err().filter(|error| error.cause().is::<JoinError>()).cloned();
    core.health.indexed(core.store.index_error().or(panicked).as_ref(), core.clock.now_ms());
    if let Some(error) = core.store.disk_full() {
        core.health.disk_is_full(&error, core.clock.now_ms());
    }
    tidied
}

/// Nobody may send any more where the server is not ready: without being asked, a store that works again would not be noticed.
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

/// What could not be read is looked for again once it can be.
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
