//! [`Acks`]: how many acknowledgements are under way, and how long they take.

use tokio::sync::watch;

use crate::worker::observe::latency::Latency;

/// The acknowledgements of a worker.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// How many are under way.
    pending: watch::Sender<usize>,
    /// How long they take: the round trip that leases keep free.
    pub(crate) times: Latency,
}

impl Acks {
    /// Counts an acknowledgement until the guard is dropped.
    pub(crate) fn begin(&self) -> impl Drop + use<'_> {
        self.pending.send_modify(|pending| *pending += 1);
        Pending(self)
    }

    /// Waits until fewer than `limit` acknowledgements are under way. Cancel-safe.
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
