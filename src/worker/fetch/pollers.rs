//! [`PollerCount`]: how many pollers are running.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The number of running pollers, from which surplus pollers leave one at a time.
#[derive(Debug, Default)]
pub(crate) struct PollerCount(AtomicUsize);

impl PollerCount {
    /// Sets the number of running pollers.
    pub(crate) fn set(&self, running: usize) {
        self.0.store(running, Relaxed);
    }

    /// The number of running pollers.
    pub(crate) fn running(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Whether the calling poller may leave, because there are more than `wanted`.
    pub(crate) fn leave(&self, wanted: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |running| (running > wanted).then(|| running - 1)).is_ok()
    }
}
