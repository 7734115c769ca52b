//! What a handler answers when it did not handle a message: a [`HandlerError`].

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::contain::{contained, debug_text_of, discard, text_of};

/// Why a message was not handled, and what should become of it.
///
/// Every error converts with `?` and means: failed, deliver it again. It does not implement [`std::error::Error`] itself, so
/// that this conversion can exist. Clones share the reason. Its text is the reason's, cut where that is longer than 4,096 bytes; a reason
/// that panics when it is written out or dropped is contained.
#[derive(Clone)]
pub struct HandlerError {
    kind: FailureKind,
    source: Reason,
}

/// What the user gave as the reason. Writing it out, or dropping it, may panic; here it cannot.
#[derive(Clone)]
struct Reason(Option<Arc<dyn StdError + Send + Sync>>);

impl Reason {
    fn new(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Some(reason.into().into()))
    }

    fn get(&self) -> &(dyn StdError + Send + Sync + 'static) {
        /// There is one until it is dropped.
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

/// What a handler wants to become of a message it did not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// It failed this time: deliver it again, as [`OnFailure`](crate::worker::OnFailure) says.
    Retry,
    /// It can never succeed: [`OnReject`](crate::worker::OnReject) says where it goes.
    Reject,
    /// Its body could not be decoded: [`OnUndecodable`](crate::worker::OnUndecodable) says what becomes of it.
    Undecodable,
    /// Not now: deliver it again after this time. Not counted as a failure where the queue has delays.
    Defer(Duration),
    /// It was not tried: the service takes it back without counting a failure, where it can.
    Release,
}

impl HandlerError {
    /// Failed this time; the message is delivered again.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Retry, source: Reason::new(reason) }
    }

    /// The message can never succeed: it is failed, parked in another queue or discarded, as the worker is set up.
    pub fn reject(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Reject, source: Reason::new(reason) }
    }

    /// Not now: the message is delivered again after `delay`, at the earliest.
    ///
    /// On queues with delays a copy is sent with that delay and the original acknowledged. FIFO and Kafka queues cannot do
    /// that, so there the message is failed, and comes again as the service sees fit.
    pub fn defer(delay: Duration) -> Self {
        Self { kind: FailureKind::Defer(delay), source: Reason::new(format!("deferred for {delay:?}")) }
    }

    /// The message was not tried, and nobody is to blame: the worker hands it back, and no failure is counted. It is available again at
    /// once, so the handler should have waited, or fetching should be paused.
    ///
    /// Only this project's server takes messages back. On other services this is a [deferral](Self::defer) of ten seconds.
    pub fn release(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Release, source: Reason::new(reason) }
    }

    /// Puts the message off by `delay`, as [`defer`](Self::defer) does, and keeps the reason of this error.
    pub fn deferred(self, delay: Duration) -> Self {
        Self { kind: FailureKind::Defer(delay), source: self.source }
    }

    /// Takes an error out of the box that `tower`'s layers put it into. A [`HandlerError`] in it is found again, with all it
    /// says; any other error means "failed, deliver it again".
    pub fn from_boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(other) => Self::retry(other),
        }
    }

    /// The body could not be decoded, for formats other than the JSON that [`Delivery::json`](crate::worker::Delivery::json) decodes;
    /// [`OnUndecodable`](crate::worker::OnUndecodable) says what becomes of the message.
    pub fn undecodable(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Undecodable, source: Reason::new(reason) }
    }

    /// What should become of the message.
    pub fn kind(&self) -> FailureKind {
        self.kind
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

/// A [`HandlerError`] on its way through code that knows boxed errors only.
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
    fn what_a_handler_said_survives_the_boxes_of_other_layers() {
        let boxed: Box<dyn StdError + Send + Sync> = HandlerError::reject("no such account").into();
        assert_eq!(boxed.to_string(), "no such account");
        assert_eq!(HandlerError::from_boxed(boxed).kind(), FailureKind::Reject);
        assert_eq!(HandlerError::from_boxed("of another layer").kind(), FailureKind::Retry);
    }
}
