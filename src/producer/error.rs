//! [`SendError`] and [`TrySendError`]: why a message was not sent.

use crate::{
    client::{Error, SentMessage},
    limits::LimitError,
    message::Message,
};

/// The result of one message.
pub(super) type SendResult = Result<SentMessage, SendError>;

/// Why one message was not sent, or may not have been sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is outside the service's limits, and was not sent.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The service or the network failed. [`Error::is_unsure`] says whether the message may have been stored.
    #[error(transparent)]
    Call(#[from] Error),
    /// The producer was closed before the message was sent.
    #[error("the producer was closed before the message was sent")]
    Closed,
    /// The producer was closed while the message was in flight. It may have been stored.
    #[error("the producer was closed before the answer came; the message may have been stored")]
    Abandoned,
}

impl SendError {
    /// Returns whether the message may have been stored, so that another send could store it twice.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Abandoned => true,
            Self::Call(error) => error.is_unsure(),
            Self::Limit(_) | Self::Closed => false,
        }
    }

    /// Returns whether the service refused the content of a request, so that another selection of its messages may
    /// succeed.
    pub(super) fn is_about_messages(&self) -> bool {
        let Self::Call(error) = self else { return false };
        let about_all = error.is_auth() || error.is_forbidden() || error.is_not_found();
        // A limit is without a status where the client found it, such as a deduplication key that the service does not keep.
        (error.status().is_some() || error.is_limit()) && !error.is_unsure() && !error.is_retryable() && !about_all
    }

    /// The kind of failure as a word, for spans.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Limit(_) => "limit",
            Self::Closed => "closed",
            _ if self.is_unsure() => "unsure",
            _ if self.is_retryable() => "unavailable",
            _ => "refused",
        }
    }

    /// Returns whether the same message may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            Self::Limit(_) | Self::Closed | Self::Abandoned => false,
        }
    }
}

/// Why a message was not accepted at once.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The most messages or bytes are pending. Returns the message.
    #[error("the producer is full: messages come faster than the service takes them")]
    Full(Box<Message>),
    /// The message is outside the service's limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The producer is closed. Returns the message.
    #[error("the producer is closed")]
    Closed(Box<Message>),
}
