//! [`Runtime`]: the thread on which everything that waits for PostgreSQL runs. Beats must be sent in time however busy the server
//! is, and timeouts must follow the real clock, also in tests that pause tokio's.

use std::{fmt, io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::store::postgres::error::PostgresError;

/// A separate tokio runtime on one thread. It ends when this is dropped.
pub(crate) struct Runtime {
    handle: Handle,
    stop: CancellationToken,
}

impl Runtime {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub(crate) fn start() -> Result<Self, PostgresError> {
        Self::try_start().map_err(|error| PostgresError::Failed(error.to_string()))
    }

    fn try_start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        thread::Builder::new()
            .name("dms-postgres".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled_owned()))?;
        Ok(Self { handle, stop })
    }

    /// Waits for a future on a thread that may block.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Runs a future on the thread.
    pub(crate) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a future on the thread, and waits for its result on any runtime.
    ///
    /// # Errors
    /// The errors of the future, and when it panicked.
    ///
    /// # Cancel safety
    /// Dropping the wait does not stop the future.
    pub(crate) async fn run<F, T>(&self, future: F) -> Result<T, PostgresError>
    where
        F: Future<Output = Result<T, PostgresError>> + Send + 'static,
        T: Send + 'static,
    {
        self.spawn(future).await.unwrap_or_else(|error| Err(PostgresError::Failed(error.to_string())))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}
