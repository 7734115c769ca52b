//! [`Selection`]: the dead letters of a group, or the messages of a parking queue.

use clap::Args;

use crate::cli::support::failure::Failure;
use dms_protocol::queue::{SourcePath, Stream};
use dms_worker::client::Client;

/// Which messages a command is about.
#[derive(Debug, Args)]
pub(super) struct Selection {
    /// The queue's name or id
    pub(super) queue: String,
    /// The group's name or id
    pub(super) group: String,
    /// The messages of a parking queue, instead of dead letters
    #[arg(long)]
    pub(super) parked: bool,
}

impl Selection {
    /// The stream that they are in.
    ///
    /// # Errors
    /// When the service cannot be asked, or knows no such queue or group.
    pub(super) async fn source(&self, client: &Client) -> Result<SourcePath, Failure> {
        let queue = client.find_queue(&self.queue).await?;
        let group = client.find_group(&queue.id, &self.group).await?;
        let stream = if self.parked { Stream::Messages } else { Stream::DeadLetters };
        Ok(SourcePath { queue: queue.id, group: group.id, stream })
    }

    /// The word for these messages.
    pub(super) fn what(&self) -> &'static str {
        if self.parked { "parked messages" } else { "dead letters" }
    }
}
