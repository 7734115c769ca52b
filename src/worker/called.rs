//! How the call of a handler ended, for one message.

use std::time::Duration;

use tracing::Span;

use super::error::HandlerError;

/// How a call ended for one message.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) ended: Ended,
    pub(crate) took: Duration,
    /// The span of the call; none where it was shared.
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Ended {
    Answered(Result<(), HandlerError>),
    Panicked(String),
    Stopped,
}
