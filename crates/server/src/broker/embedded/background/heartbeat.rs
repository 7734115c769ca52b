//! The heartbeat: while messages are leased, it looks often enough to detect pauses of the process, so that open leases are extended
//! by them (see `state/pause`).

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::broker::embedded::core::Core;

/// The time between two beats. It has to be shorter than the shortest pause that counts.
const INTERVAL: Duration = Duration::from_millis(100);

/// Detects pauses until the task is aborted.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        // Registered before looking, so that a lease that begins between the look and the wait is not missed.
        let leased = core.heartbeat.notified();
        let idle = {
            let mut state = core.lock();
            state.notice_pause();
            state.deadlines.is_empty()
        };
        if idle {
            leased.await;
        } else {
            sleep(INTERVAL).await;
        }
    }
}
