//! How the call of a handler ended, for one message.

use std::time::Duration;

use tracing::Span;

use crate::worker::{handler::error::HandlerError, observe::event::HandlerOutcome};

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

impl Ended {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Answered(Ok(())))
    }

    /// The same for observers; a call that is stopped once the grace period is over was `interrupted`.
    pub(crate) fn outcome(&self, interrupted: bool) -> HandlerOutcome<'_> {
        match self {
            Self::Answered(Ok(())) => HandlerOutcome::Done,
            Self::Answered(Err(error)) => HandlerOutcome::Failed(error),
            Self::Panicked(message) => HandlerOutcome::Panicked(message),
            Self::Stopped if interrupted => HandlerOutcome::Interrupted,
            Self::Stopped => HandlerOutcome::TimedOut,
        }
    }
}
