//! The task that has the store do what no answer waits for, in bounded pieces between commits.

use std::{sync::Arc, time::Duration};

use tokio::{task::yield_now, time::sleep};

use super::core::Core;

/// How long to wait after the store failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Tidies whenever the store wants it, until the task is aborted.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        while core.store.wants_tidying() {
            match core.ask_store(|store| store.tidy()).await {
                Ok(true) => yield_now().await,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(%error, "the store could not tidy up; it will be tried again");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
        core.housekeeper.notified().await;
    }
}
