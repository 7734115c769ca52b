//! [`Acks`]: how many acknowledgements are in progress, and how long they take.

use tokio::sync::watch;

use crate::worker::observe::latency::Latency;

/// The acknowledgements of a worker.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The number of acknowledgements in progress.
    pending: watch::Sender<usize>,
    /// How long they take. Leases keep this round trip free.
    pub(crate) times: Latency,
}

impl Acks {
    /// Counts an acknowledgement until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Drop + use<'_> {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self)
    }

    /// Waits until fewer than `limit` acknowledgements are in progress. Cancel-safe.
    pub(crate) async fn below(&self, limit: usize) {
        if *self.pending.borrow() < limit {
            return;
        }
        // The sender lives as long as `self`.
        let _ = self.pending.subscribe().wait_for(|pending| *pending < limit).await;
    }
}

struct Pending<'a>(&'a Acks);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.send_modify(|pending| *pending -= 1);
    }
}
