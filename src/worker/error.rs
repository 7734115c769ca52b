//! [`WorkerError`]: why a worker ended.

use crate::client::Error;
use dms_protocol::settings::InvalidSettings;

/// Why a worker ended before it was stopped.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WorkerError(#[from] WorkerErrorKind);

#[derive(Debug, thiserror::Error)]
enum WorkerErrorKind {
    #[error(transparent)]
    Service(Error),
    #[error(transparent)]
    Settings(InvalidSettings),
    #[error("it panicked: {0}")]
    Died(String),
}

impl WorkerError {
    /// The error of the service, if that is the reason.
    pub fn client_error(&self) -> Option<&Error> {
        match &self.0 {
            WorkerErrorKind::Service(error) => Some(error),
            WorkerErrorKind::Settings(_) | WorkerErrorKind::Died(_) => None,
        }
    }

    /// Whether the worker itself panicked. This is a bug in this crate, because panics of handlers are contained.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, WorkerErrorKind::Died(_))
    }

    /// The error of a worker whose task panicked or was aborted.
    pub(crate) fn died(reason: &impl ToString) -> Self {
        Self(WorkerErrorKind::Died(reason.to_string()))
    }
}

impl From<Error> for WorkerError {
    fn from(error: Error) -> Self {
        Self(WorkerErrorKind::Service(error))
    }
}

impl From<InvalidSettings> for WorkerError {
    fn from(error: InvalidSettings) -> Self {
        Self(WorkerErrorKind::Settings(error))
    }
}
