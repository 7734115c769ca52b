//! The words for a verdict in JSON: `done`, `retry`, `reject`.

use serde::Deserialize;

use dms_worker::worker::HandlerError;

/// What became of a message, as an application or a program says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Done,
    Retry,
    Reject,
}

impl Verdict {
    /// What it means for the worker, with the reason that was given.
    pub(super) fn verdict(self, reason: Option<String>) -> Result<(), HandlerError> {
        let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
        match self {
            Self::Done => Ok(()),
            Self::Retry => Err(HandlerError::retry(reason)),
            Self::Reject => Err(HandlerError::reject(reason)),
        }
    }
}
