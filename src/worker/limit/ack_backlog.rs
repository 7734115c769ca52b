//! [`AckBacklog`]: how many acknowledgements are under way.

use tokio::sync::watch;

/// Batches whose acknowledgement is under way: when there are too many, fetching waits.
#[derive(Debug)]
pub(crate) struct AckBacklog {
    pending: watch::Sender<usize>,
}

impl AckBacklog {
    pub(crate) fn new() -> Self {
        Self { pending: watch::Sender::new(0) }
    }

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

struct Pending<'a>(&'a AckBacklog);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.send_modify(|pending| *pending -= 1);
    }
}
