//! [`Runtime`]: the thread on which everything that waits for PostgreSQL runs. Beats must be sent in time however busy the server
//! is, and timeouts must follow the real clock, also in tests that pause tokio's.

use std::{fmt, io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
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
        // Never joined: a store that is dropped must not wait for a statement that hangs.
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

    /// The same on a thread of its own, for a future that also takes the processor for long: on the shared thread, it would hold up the beats, and
    /// others would take this server for dead.
    ///
    /// # Errors
    /// The errors of the future, when it panicked, and when the system gives no thread.
    ///
    /// # Cancel safety
    /// Dropping the wait does not stop the future.
    pub(crate) async fn run_apart<F, T>(&self, future: F) -> Result<T, PostgresError>
    where
        F: Future<Output = Result<T, PostgresError>> + Send + 'static,
        T: Send + 'static,
    {
        let (handle, (sender, result)) = (self.handle.clone(), oneshot::channel());
        thread::Builder::new()
            .name("dms-open".to_owned())
            // Nobody may wait for the result any more.
            .spawn(move || drop(sender.send(handle.block_on(future))))
            .map_err(|error| PostgresError::Failed(error.to_string()))?;
        result.await.unwrap_or_else(|_| Err(PostgresError::Failed("the thread panicked".to_owned())))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn work_on_a_thread_of_its_own_holds_up_no_beat() {
        let runtime = Runtime::start().unwrap();
        let ((begins, begun), (beaten, beat)) = (oneshot::channel(), std::sync::mpsc::channel());
        let work = runtime.run_apart(async move {
            begins.send(()).unwrap();
            let waited = beat.recv_timeout(Duration::from_secs(20));
            waited.map_err(|error| PostgresError::Failed(error.to_string()))
        });
        let beats = runtime.spawn(async move {
            begun.await.unwrap();
            beaten.send(7).unwrap();
        });
        let (worked, beaten) = runtime.block_on(async { tokio::join!(work, beats) });
        beaten.unwrap();
        assert_eq!(worked.unwrap(), 7);
    }
}
