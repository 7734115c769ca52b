//! What a handler answers when it did not handle a message: a [`HandlerError`].

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// Why a message was not handled, and what should become of it.
///
/// Every error converts with `?` and means: failed, deliver it again. It does not implement [`std::error::Error`] itself, so
/// that this conversion can exist. Clones share the reason.
#[derive(Clone)]
pub struct HandlerError {
    kind: FailureKind,
    source: Arc<dyn StdError + Send + Sync>,
}

/// What a handler wants to become of a message it did not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// It failed this time: deliver it again, as [`OnFailure`](super::OnFailure) says.
    Retry,
    /// It can never succeed: [`OnReject`](super::OnReject) says where it goes.
    Reject,
    /// Its body could not be decoded: [`OnUndecodable`](super::OnUndecodable) says what becomes of it.
    Undecodable,
    /// Not now: deliver it again after this time. Not counted as a failure where the queue has delays.
    Defer(Duration),
}

impl HandlerError {
    /// Failed this time; the message is delivered again.
    pub fn retry(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Retry, source: reason.into().into() }
    }

    /// The message can never succeed: it is failed, parked in another queue or discarded, as the worker is set up.
    pub fn reject(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Reject, source: reason.into().into() }
    }

    /// Not now: the message is delivered again after `delay`, at the earliest.
    ///
    /// On queues with delays a copy is sent with that delay and the original acknowledged. FIFO and Kafka queues cannot do
    /// that, so there the message is failed, and comes again as the service sees fit.
    pub fn defer(delay: Duration) -> Self {
        Self {
            kind: FailureKind::Defer(delay),
            source: Box::<dyn StdError + Send + Sync>::from(format!("deferred for {delay:?}")).into(),
        }
    }

    /// The same reason, but not now: as [`defer`](Self::defer).
    pub(crate) fn deferred(self, delay: Duration) -> Self {
        Self { kind: FailureKind::Defer(delay), ..self }
    }

    /// Takes an error out of the box that `tower`'s layers put it into. A [`HandlerError`] in it is found again, with all it
    /// says; any other error means "failed, deliver it again".
    pub fn from_boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(other) => Self::retry(other),
        }
    }

    /// The body could not be decoded, for formats other than the JSON that [`Delivery::json`](super::Delivery::json) decodes;
    /// [`OnUndecodable`](super::OnUndecodable) says what becomes of the message.
    pub fn undecodable(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: FailureKind::Undecodable, source: reason.into().into() }
    }

    /// What should become of the message.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The reason.
    pub fn reason(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.source
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
        self.0.source.source()
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
            FailureKind::Undecodable => write!(f, "the body cannot be decoded: {}", self.source),
            FailureKind::Retry | FailureKind::Reject | FailureKind::Defer(_) => self.source.fmt(f),
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError").field("kind", &self.kind).field("source", &self.source).finish()
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
