//! [`HandlerOutcome`]: how the call of a handler ended, for one message.

use std::time::Duration;

use tracing::Span;

use super::error::{FailureKind, HandlerError};

/// How the call of a handler ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum HandlerOutcome<'a> {
    /// The handler succeeded.
    Done,
    /// The handler returned an error.
    Failed(&'a HandlerError),
    /// The handler panicked with this message.
    Panicked(&'a str),
    /// The handler was stopped at the deadline of the message.
    TimedOut,
    /// The handler was stopped at the end of the worker's grace period.
    Interrupted,
}

impl HandlerOutcome<'_> {
    /// A short stable name: `done`, `failed`, `panicked`, `timed_out`, `interrupted`, and for errors also `rejected`
    /// and `deferred`. An error that says that the attempt [took too long](HandlerError::timed_out) is `timed_out`. A [released](HandlerError::release) message is `deferred`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Panicked(_) => "panicked",
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
            Self::Failed(error) => match error.kind() {
                FailureKind::Retry if error.is_timed_out() => "timed_out",
                FailureKind::Retry => "failed",
                FailureKind::Reject | FailureKind::Undecodable => "rejected",
                FailureKind::Defer(_) | FailureKind::Release => "deferred",
            },
        }
    }
}

/// How a call ended, for one message.
#[derive(Debug)]
pub(crate) struct CallOutcome {
    pub(crate) ended: CallEnd,
    pub(crate) took: Duration,
    /// The span of the call. Disabled if other messages shared the call.
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

    /// The end of the call as observers see it. A call that was stopped is `Interrupted` if the grace period is over,
    /// otherwise `TimedOut`. Only for a stopped call this is looked up, because all messages of a worker share the answer.
    pub(crate) fn outcome(&self, is_grace_over: impl FnOnce() -> bool) -> HandlerOutcome<'_> {
        match self {
            Self::Answered(Ok(())) => HandlerOutcome::Done,
            Self::Answered(Err(error)) => HandlerOutcome::Failed(error),
            Self::Panicked(message) => HandlerOutcome::Panicked(message),
            Self::Stopped if is_grace_over() => HandlerOutcome::Interrupted,
            Self::Stopped => HandlerOutcome::TimedOut,
        }
    }
}
