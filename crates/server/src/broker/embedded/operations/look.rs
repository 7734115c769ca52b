//! [`Look`]: the right to read messages that are not leased. The number of looks at the same time and their memory are limited.

use tokio::sync::SemaphorePermit;

use crate::{
    broker::{BrokerError, embedded::core::Core},
    store::ReadLimit,
};

/// What a look reads at once. This is also the size of its answer, apart from the last message.
pub(crate) const LOOK: ReadLimit = ReadLimit { messages: 1_000, bytes: 4 * 1024 * 1024 };

/// A look takes at most this part of the memory for leased messages.
const SHARE: usize = 16;

/// A look that was admitted. Dropping it frees its memory.
pub(crate) struct Look<'a> {
    core: &'a Core,
    /// The memory that it was admitted with.
    bytes: usize,
    _turn: SemaphorePermit<'a>,
}

impl Core {
    /// Waits until there is room for a look.
    ///
    /// # Errors
    /// [`BrokerError::TooMuchLeased`] when consumers and other looks hold the memory, and when the broker is closed.
    pub(crate) async fn look(&self) -> Result<Look<'_>, BrokerError> {
        let turn = self.looks.acquire().await.map_err(|_| BrokerError::Closed)?;
        let mut state = self.open()?;
        let most = state.config.max_leased_bytes;
        let bytes = LOOK.bytes.min(most / SHARE);
        if !state.leased.begin_look(bytes, most) {
            return Err(BrokerError::TooMuchLeased(most));
        }
        Ok(Look { core: self, bytes, _turn: turn })
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.core.lock().leased.end_look(self.bytes);
    }
}
