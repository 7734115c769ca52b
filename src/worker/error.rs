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
    /// Its body could not be decoded: treated as a reject.
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

    pub(crate) fn undecodable(source: serde_json::Error) -> Self {
        Self { kind: FailureKind::Undecodable, source: Arc::new(source) }
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
