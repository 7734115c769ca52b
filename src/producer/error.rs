//! Why a message was not sent.

use crate::{
    client::Error,
    limits::LimitError,
    message::{Message, MessageId},
};

/// What becomes of one message.
pub(super) type SendResult = Result<Option<MessageId>, SendError>;

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

    /// Whether the service refused a request for what is in it, so that another selection of its messages may fare better.
    pub(super) fn is_about_messages(&self) -> bool {
        let Self::Call(error) = self else { return false };
        let about_all = error.is_auth() || error.is_forbidden() || error.is_not_found();
        error.status().is_some() && !error.is_unsure() && !error.is_retryable() && !about_all
    }

    /// A word for spans: what kind of failure it was.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Limit(_) => "limit",
            Self::Closed => "closed",
            _ if self.is_unsure() => "unsure",
            _ if self.is_retryable() => "unavailable",
            _ => "refused",
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
    Full(Box<Message>),
    /// The message is outside the service's limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The producer is closed. Gives the message back.
    #[error("the producer is closed")]
    Closed(Box<Message>),
}
