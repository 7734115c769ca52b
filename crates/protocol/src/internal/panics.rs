//! Panics of code that must not end the task around it.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

/// Runs a future to its end, or until it panics. The future stays where it is pinned: `catch_unwind` of `futures-util` moves it,
/// which costs more than many a handler.
///
/// # Errors
/// What the future panicked with.
pub async fn until_panic<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Result<F::Output, Box<dyn Any + Send>> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
