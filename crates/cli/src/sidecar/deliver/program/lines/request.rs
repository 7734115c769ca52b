//! [`ProgramRequest`]: what the handler asks of the keeper of the process.

use tokio::sync::oneshot;

use crate::sidecar::deliver::program::lines::open_messages::{Lost, Reply};

/// A request to the keeper of the process.
pub(super) enum ProgramRequest {
    Message {
        id: u64,
        /// The message as a line, which has the id.
        line: String,
        /// Notified when a process receives the message.
        given: oneshot::Sender<()>,
        reply: Reply,
    },
    /// The process does not get past this message.
    Hangs(u64),
}

impl ProgramRequest {
    /// Whether somebody waits for the answer.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Message { reply, .. } if !reply.is_closed())
    }

    /// The program cannot be started.
    pub(super) fn refuse(self) {
        if let Self::Message { reply, .. } = self {
            // The message may have been given up meanwhile.
            let _ = reply.send(Err(Lost::NoProgram));
        }
    }
}
