//! [`Settling`]: prints the messages of a batch, and acknowledges those that were read.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cli::{
    commands::receive::{line, reader::Reader},
    support::{
        confirm::counted,
        context::Context,
        failure::{Failure, Kind},
    },
};
use dms_protocol::{
    message::{AckLine, AckStatus, ReceivedMessage},
    queue::SourcePath,
};
use dms_worker::client::Client;

/// The time before the end of a lease at which what was printed is acknowledged, read to the end or not.
const MARGIN: Duration = Duration::from_secs(2);

/// What a batch is printed and acknowledged with.
pub(super) struct Settling<'a> {
    pub(super) client: Client,
    pub(super) source: SourcePath,
    pub(super) context: &'a Context,
    pub(super) reader: Reader,
    pub(super) ack: bool,
    /// Cancelled by an interrupt.
    pub(super) stop: CancellationToken,
}

/// What became of a batch.
pub(super) struct Printed {
    /// The number of messages that were printed; with `--ack`, that were read.
    pub(super) count: usize,
    /// Whether the reader has ended, or the user has interrupted the command.
    pub(super) ended: bool,
}

impl Settling<'_> {
    /// Prints a batch whose lease ends at `lease`, and acknowledges it if asked to.
    pub(super) async fn print(&self, batch: &[ReceivedMessage], lease: Instant) -> Result<Printed, Failure> {
        let due = lease.checked_sub(MARGIN).unwrap_or(lease);
        let mut printed = Printed { count: 0, ended: false };
        let mut late = false;
        for message in batch {
            match self.context.printer().json_line(&line(message, !self.ack)).map_err(Failure::from) {
                Err(closed) if closed.kind() == Kind::ClosedPipe => printed.ended = true,
                Err(error) => {
                    self.acknowledge(batch, printed.count).await?;
                    return Err(error);
                }
                Ok(()) if !self.ack => {}
                // One line after the other: a reader that gets ten may print three of them and end.
                Ok(()) => tokio::select! {
                    read = timeout_at(due, self.reader.has_read()) => match read {
                        Ok(read) => printed.ended = !read,
                        Err(_) => late = true,
                    },
                    () = self.stop.cancelled() => printed.ended = true,
                },
            }
            if printed.ended || late {
                break;
            }
            printed.count += 1;
        }
        self.acknowledge(batch, printed.count).await?;
        if late {
            let left = counted(u64::try_from(batch.len() - printed.count).unwrap_or(u64::MAX), "message");
            self.context
                .say(&format!("the reader needs longer than --ack-wait: {left} handed back, and printed again"));
            tokio::select! {
                read = self.reader.has_read() => printed.ended = !read,
                () = self.stop.cancelled() => printed.ended = true,
            }
        }
        Ok(printed)
    }

    /// Acknowledges the first `read` messages of a batch, and hands the others back.
    async fn acknowledge(&self, batch: &[ReceivedMessage], read: usize) -> Result<(), Failure> {
        if !self.ack || batch.is_empty() {
            return Ok(());
        }
        let status = |place| if place < read { AckStatus::Success } else { AckStatus::Release };
        let lines = batch.iter().enumerate().map(|(place, message)| AckLine::new(&message.handle, status(place)));
        let lines: Vec<_> = lines.collect();
        let outcome = self.client.acknowledge_lines(&self.source, &lines).await?;
        if outcome.success < read {
            let lost = counted(u64::try_from(read - outcome.success).unwrap_or(u64::MAX), "printed message");
            return Err(Failure::new(format!("the service did not take the acknowledgement of {lost}: redelivered")));
        }
        Ok(())
    }
}
