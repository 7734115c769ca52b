//! How long a queue keeps its messages.

use crate::broker::embedded::{config::EffectiveRetention, core::Core, state::QueueState};

impl Core {
    /// How long a queue keeps messages now.
    pub(crate) fn retention(&self, queue: &QueueState) -> EffectiveRetention {
        self.config.retention_of(&queue.row, queue.retention)
    }
}
