//! [`InlineBatches`]: notices when a handler holds up the other messages of its batch, which share a task with it.
//!
//! One task watches all batches of a worker. A timer of each batch would be earlier than all other timers of the runtime, and so
//! would wake its I/O driver each time, although nearly no batch lives that long.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How long messages that have not started wait for the handlers before them.
const INLINE_RUN_LIMIT: Duration = Duration::from_millis(1);

/// The messages of a batch that share a task.
pub(crate) trait InlineRuns: Send + Sync {
    /// Whether messages have not started.
    fn are_waiting(&self) -> bool;
    /// Spawns a separate task for each message that has not started.
    fn spawn_waiting(self: Arc<Self>);
}

/// The batches of a worker whose messages share a task.
#[derive(Default)]
pub(crate) struct InlineBatches(Mutex<InlineTable>);

#[derive(Default)]
struct InlineTable {
    /// When each batch began, in this order.
    begun: VecDeque<(Instant, Weak<dyn InlineRuns>)>,
    is_watched: bool,
}

impl InlineBatches {
    /// Gives each message of a batch a task of its own if it has not started after [`INLINE_RUN_LIMIT`].
    pub(crate) fn watch(self: &Arc<Self>, batch: Weak<dyn InlineRuns>) {
        let mut table = self.lock();
        table.begun.push_back((Instant::now(), batch));
        if !mem::replace(&mut table.is_watched, true) {
            tokio::spawn(spawn_late(self.clone()));
        }
    }

    /// The batch with waiting messages that began first, and when. Forgets the batches without. If there is none, the table is
    /// not watched any more.
    fn first(&self) -> Option<(Instant, Arc<dyn InlineRuns>)> {
        let mut table = self.lock();
        while let Some((begun, batch)) = table.begun.front() {
            if let Some(batch) = batch.upgrade().filter(|batch| batch.are_waiting()) {
                return Some((*begun, batch));
            }
            table.begun.pop_front();
        }
        table.is_watched = false;
        None
    }

    fn lock(&self) -> MutexGuard<'_, InlineTable> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InlineBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlineBatches({})", self.lock().begun.len())
    }
}

/// Spawns tasks for the messages that have not started in time, until no message waits.
async fn spawn_late(batches: Arc<InlineBatches>) {
    let mut due = Instant::now() + INLINE_RUN_LIMIT;
    loop {
        sleep_until(due).await;
        loop {
            let Some((begun, batch)) = batches.first() else { return };
            due = begun + INLINE_RUN_LIMIT;
            if due > Instant::now() {
                break;
            }
            batch.spawn_waiting();
            batches.lock().begun.pop_front();
        }
    }
}
