//! How the call of a handler ended, for one message.

use std::time::Duration;

use tracing::Span;

use super::error::{FailureKind, HandlerError};

/// How a handler's run ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum HandlerOutcome<'a> {
    /// It succeeded.
    Done,
    /// It answered with an error.
    Failed(&'a HandlerError),
    /// It panicked, with this message.
    Panicked(&'a str),
    /// It was stopped at its deadline.
    TimedOut,
    /// It was stopped because the worker's grace period was over.
    Interrupted,
}

impl HandlerOutcome<'_> {
    /// A short stable name: `done`, `failed`, `panicked`, `timed_out`, `interrupted`, or for errors `rejected` and `deferred`
    /// (which is also what a [released](HandlerError::release) message is).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Panicked(_) => "panicked",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
            Self::Failed(error) => match error.kind() {
                FailureKind::Retry => "failed",
                FailureKind::Reject | FailureKind::Undecodable => "rejected",
                FailureKind::Defer(_) | FailureKind::Release => "deferred",
            },
        }
    }
}

/// How a call ended for one message.
#[derive(Debug)]
pub(crate) struct CallOutcome {
    pub(crate) ended: CallEnd,
    pub(crate) took: Duration,
    /// The span of the call; none where it was shared.
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum CallEnd {
    Answered(Result<(), HandlerError>),
    Panicked(String),
    Stopped,
}

impl CallEnd {
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
