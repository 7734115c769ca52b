//! [`HandlerError`]: the result of a handler that did not handle its message.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::{
    contain::{contained, debug_text_of, discard, text_of},
    text::brief,
};

/// Why a message was not handled, and what should become of it.
///
/// Every error converts with `?`, and means that the message failed and is to be redelivered. [`HandlerError`] does not
/// implement [`std::error::Error`] itself, because this conversion could not exist then. Clones share the reason. The
/// error shows the text of the reason, cut after 4,096 bytes. A reason that panics when it is formatted or dropped
/// does no harm.
///
/// ```
/// use std::time::Duration;
///
/// use dms_worker::{Delivery, HandlerError};
///
/// async fn charge(delivery: Delivery) -> Result<(), HandlerError> {
///     let cents: i64 = delivery.json()?; // a body that is no number is rejected
///     if cents < 0 {
///         return Err(HandlerError::reject("a negative amount")); // it can never succeed
///     }
///     if !bank_is_open() {
///         return Err(HandlerError::defer(Duration::from_secs(600))); // not now: no failure is counted
///     }
///     transfer(cents)?; // after any other error the message is redelivered
///     Ok(())
/// }
///
/// fn bank_is_open() -> bool {
///     true
/// }
///
/// fn transfer(_cents: i64) -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct HandlerError {
    kind: FailureKind,
    /// Whether the attempt failed because it took too long.
    timed_out: bool,
    source: Reason,
}

/// The user's reason. Formatting or dropping it may panic, which is contained here.
#[derive(Clone)]
struct Reason(Option<Arc<dyn StdError + Send + Sync>>);

impl Reason {
    fn new(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Some(reason.into().into()))
    }

    fn get(&self) -> &(dyn StdError + Send + Sync + 'static) {
        /// A reason is absent only while it is dropped.
        const NONE: &Gone = &Gone;
        self.0.as_deref().unwrap_or(NONE)
    }
}

impl Drop for Reason {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no reason")]
struct Gone;

/// What should become of a message that was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The attempt failed: [`OnFailure`](crate::worker::OnFailure) decides how the message is redelivered.
    Retry,
    /// The message can never succeed: [`OnReject`](crate::worker::OnReject) decides.
    Reject,
    /// The body could not be decoded: [`OnUndecodable`](crate::worker::OnUndecodable) decides.
    Undecodable,
    /// The message should be redelivered after this delay. It does not count as a failure on queues that support
    /// delays.
    Defer(Duration),
    /// The message was not tried. It is redelivered without counting a failure, where the service supports that.
    Release,
}

impl HandlerError {
    /// The attempt failed; the message is redelivered.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(FailureKind::Retry, reason)
    }

    /// The attempt failed because it took too long, for example because a service called by the handler did not answer. As
    /// [`retry`](Self::retry), but the failure is counted and reported as `timed_out` and not as `failed`.
    pub fn timed_out(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { timed_out: true, ..Self::retry(reason) }
    }

    fn of(kind: FailureKind, reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, timed_out: false, source: Reason::new(reason) }
    }

    /// The message can never succeed. It becomes a dead letter, is parked or discarded, as the worker is configured.
    pub fn reject(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(FailureKind::Reject, reason)
    }

    /// The message should be redelivered after `delay` at the earliest.
    ///
    /// On queues that support delays, a copy with that delay is sent and the original is acknowledged. On FIFO and
    /// Kafka queues, which do not, the message fails and is redelivered by the service.
    pub fn defer(delay: Duration) -> Self {
        Self::of(FailureKind::Defer(delay), format!("deferred for {}", brief(delay)))
    }

    /// The message was not tried. The worker hands it back without counting a failure. It is available again at once,
    /// so the handler should have waited, or the worker should be paused.
    ///
    /// Only this project's server takes messages back. On other services this is a [deferral](Self::defer) of ten
    /// seconds.
    pub fn release(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(FailureKind::Release, reason)
    }

    /// Defers the message by `delay`, as [`defer`](Self::defer) does, and keeps the reason of this error.
    pub fn deferred(self, delay: Duration) -> Self {
        Self { kind: FailureKind::Defer(delay), timed_out: false, source: self.source }
    }

    /// Takes an error out of the box into which `tower`'s layers put it. A [`HandlerError`] in the box is recovered
    /// unchanged; any other error means that the message failed and is to be redelivered.
    pub fn from_boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(other) => Self::retry(other),
        }
    }

    /// The body could not be decoded, for formats other than the JSON that
    /// [`Delivery::json`](crate::worker::Delivery::json) decodes. [`OnUndecodable`](crate::worker::OnUndecodable)
    /// decides what becomes of the message.
    pub fn undecodable(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(FailureKind::Undecodable, reason)
    }

    /// What should become of the message.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Whether the attempt failed because it [took too long](Self::timed_out).
    pub fn is_timed_out(&self) -> bool {
        self.timed_out
    }

    /// The reason.
    pub fn reason(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self.source.get()
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// A [`HandlerError`] inside a boxed error.
#[derive(Debug)]
struct Boxed(HandlerError);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Boxed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        contained(|| self.0.reason().source()).ok().flatten()
    }
}

impl From<HandlerError> for Box<dyn StdError + Send + Sync> {
    fn from(error: HandlerError) -> Self {
        Box::new(Boxed(error))
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FailureKind::Undecodable => write!(f, "the body cannot be decoded: {}", text_of(self.reason())),
            FailureKind::Retry | FailureKind::Reject | FailureKind::Defer(_) | FailureKind::Release => {
                f.pad(&text_of(self.reason()))
            }
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("kind", &self.kind)
            .field("source", &format_args!("{}", debug_text_of(self.reason())))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_error_survives_being_boxed_by_layers() {
        let boxed: Box<dyn StdError + Send + Sync> = HandlerError::reject("no such account").into();
        assert_eq!(boxed.to_string(), "no such account");
        assert_eq!(HandlerError::from_boxed(boxed).kind(), FailureKind::Reject);
        assert_eq!(HandlerError::from_boxed("of another layer").kind(), FailureKind::Retry);
    }
}
