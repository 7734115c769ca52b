//! Why a message was not sent.

use crate::{client::Error, limits::LimitError, message::Message};

/// Why one message was not sent, or not surely.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The message is outside the service's limits; nothing was sent.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The service or the network failed. [`Error::is_unsure`] says whether the message may have been stored.
    #[error(transparent)]
    Call(#[from] Error),
    /// The producer was closed before the message was sent; nothing was sent.
    #[error("the producer was closed before the message was sent")]
    Closed,
    /// The producer was closed while the message was on its way: it may have been stored.
    #[error("the producer was closed before the answer came; the message may have been stored")]
    Abandoned,
}

impl SendError {
    /// Whether the message may have been stored all the same, so that sending it again may double it.
    pub fn is_unsure(&self) -> bool {
        match self {
            Self::Abandoned => true,
            Self::Call(error) => error.is_unsure(),
            Self::Limit(_) | Self::Closed => false,
        }
    }

    /// Whether the same message may go through later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.is_retryable(),
            Self::Limit(_) | Self::Closed | Self::Abandoned => false,
        }
    }
}

/// Why a message was not taken at once.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// As many messages or bytes are waiting as may be. Gives the message back.
    #[error("the producer is full: messages come faster than the service takes them")]
    Full(Message),
    /// The message is outside the service's limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The producer is closed. Gives the message back.
    #[error("the producer is closed")]
    Closed(Message),
}
