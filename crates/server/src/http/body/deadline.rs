//! [`BodyDeadline`]: the minimum speed at which a body has to arrive.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::{BodyError, memory::UNCOUNTED_BYTES};

/// A body that uses counted memory has to deliver [`MIN_WINDOW_BYTES`] bytes in each window.
const WINDOW: Duration = Duration::from_secs(10);
/// See [`WINDOW`].
const MIN_WINDOW_BYTES: usize = 64 << 10;

/// The deadlines of one body.
#[derive(Debug)]
pub(super) struct BodyDeadline {
    /// When the whole body is due.
    due: Instant,
    /// When the window ends. Equal to `due` for a small body, which uses no counted memory.
    window_ends: Instant,
    /// The number of bytes that have arrived in the window.
    arrived: usize,
}

impl BodyDeadline {
    /// The deadlines of a body of at most `announced` bytes that begins to arrive now.
    pub(super) fn new(limit: Duration, announced: usize) -> Self {
        let now = Instant::now();
        let due = now + limit;
        let window_ends = if announced > UNCOUNTED_BYTES { due.min(now + WINDOW) } else { due };
        Self { due, window_ends, arrived: 0 }
    }

    /// Counts bytes.
    pub(super) fn count(&mut self, bytes: usize) {
        self.arrived += bytes;
    }

    /// Waits for the next bytes. Polls `next` again after a window in which enough bytes arrived.
    pub(super) async fn limit<F: Future>(&mut self, next: F) -> Result<F::Output, BodyError> {
        let mut next = std::pin::pin!(next);
        loop {
            if let Ok(output) = timeout_at(self.window_ends, next.as_mut()).await {
                return Ok(output);
            }
            if self.window_ends == self.due || self.arrived < MIN_WINDOW_BYTES {
                return Err(BodyError::TooSlow);
            }
            self.next_window();
        }
    }

    /// Waits for memory, at most for `limit`. This wait does not count against the sender.
    pub(super) async fn wait(&mut self, limit: Duration, room: impl Future<Output = ()>) -> Result<(), BodyError> {
        let left = self.due.saturating_duration_since(Instant::now());
        timeout(limit.min(left), room).await.map_err(|_| BodyError::NoRoom)?;
        self.next_window();
        Ok(())
    }

    fn next_window(&mut self) {
        (self.window_ends, self.arrived) = (self.due.min(Instant::now() + WINDOW), 0);
    }
}
