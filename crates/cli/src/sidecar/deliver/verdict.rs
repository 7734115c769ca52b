//! The words for a verdict in JSON: `done`, `retry`, `reject`.

use serde::Deserialize;

use dms_worker::worker::HandlerError;

/// The verdict of an application or a program on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AppVerdict {
    Done,
    Retry,
    Reject,
}

impl AppVerdict {
    /// The result for the worker, with the reason given.
    pub(super) fn verdict(self, reason: Option<String>) -> Result<(), HandlerError> {
        let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
        match self {
            Self::Done => Ok(()),
            Self::Retry => Err(HandlerError::retry(reason)),
            Self::Reject => Err(HandlerError::reject(reason)),
        }
    }
}
