//! [`PollerCount`]: how many pollers run.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many pollers run, so that the surplus can leave one at a time.
#[derive(Debug, Default)]
pub(crate) struct PollerCount(AtomicUsize);

impl PollerCount {
    /// There are so many now.
    pub(crate) fn set(&self, running: usize) {
        self.0.store(running, Relaxed);
    }

    /// How many there are.
    pub(crate) fn running(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Whether the calling poller may leave because there are more than `wanted`.
    pub(crate) fn leave(&self, wanted: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |running| (running > wanted).then(|| running - 1)).is_ok()
    }
}
