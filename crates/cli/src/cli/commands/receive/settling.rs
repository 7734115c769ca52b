//! [`Settling`]: prints the messages of a batch, and acknowledges each one that was read.

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cli::{
    commands::receive::{line, reader::Reader},
    support::{
        confirm::counted,
        failure::{ExitKind, Failure},
    },
};
use dms_protocol::{message::AckStatus, queue::SourcePath};
use dms_worker::{client::Client, internal::LeasedBatch};

/// The means to print and acknowledge batches.
pub(super) struct Settling<'a> {
    pub(super) client: Client,
    pub(super) source: SourcePath,
    /// Prints a line of results.
    pub(super) print: &'a (dyn Fn(&str) -> Result<(), Failure> + Sync),
    /// Writes a note for the user.
    pub(super) say: &'a (dyn Fn(&str) + Sync),
    pub(super) reader: Reader,
    pub(super) ack: bool,
    /// Cancelled by a signal.
    pub(super) stop: CancellationToken,
}

/// The result of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printed {
    /// The number of messages that were printed; with `--ack`, that were read.
    pub(super) count: usize,
    /// Whether the reader has ended, or the user has stopped the command.
    pub(super) ended: bool,
}

/// What happened to a line.
enum Line {
    /// It was printed and, with `--ack`, read.
    Read,
    /// The reader has ended, or the user has stopped the command. Nobody has read the line.
    Ended,
    /// It was printed, and not read in time.
    Unread,
}

impl Settling<'_> {
    /// Prints a batch, and acknowledges its messages that were read if asked to.
    pub(super) async fn settle(&self, batch: &LeasedBatch) -> Result<Printed, Failure> {
        let mut printed = Printed::default();
        let mut unread = false;
        for message in &batch.messages {
            // A message that is printed now could not be acknowledged any more, and would be printed again.
            if self.ack && (Instant::now() >= batch.due || self.stop.is_cancelled()) {
                break;
            }
            match self.print(&line(message, !self.ack), batch.due).await {
                Ok(Line::Read) => printed.count += 1,
                Ok(Line::Ended) => {
                    printed.ended = true;
                    break;
                }
                Ok(Line::Unread) => {
                    unread = true;
                    break;
                }
                Err(error) => {
                    self.acknowledge(batch, printed.count).await?;
                    return Err(error);
                }
            }
        }
        self.acknowledge(batch, printed.count).await?;
        if unread {
            printed.ended = !self.read_late(batch.messages.len() - printed.count).await;
        }
        printed.ended |= self.stop.is_cancelled();
        Ok(printed)
    }

    /// Prints a line. With `--ack`, waits until `due` for the reader to read it, because a reader that gets ten lines at once may use
    /// three of them and end.
    async fn print(&self, line: &str, due: Instant) -> Result<Line, Failure> {
        match (self.print)(line) {
            Err(closed) if closed.kind() == ExitKind::ClosedPipe => return Ok(Line::Ended),
            Err(error) => return Err(error),
            Ok(()) if !self.ack => return Ok(Line::Read),
            Ok(()) => {}
        }
        let read = tokio::select! {
            biased;
            read = timeout_at(due, self.reader.has_read()) => read,
            // The reader may have read the line at the last moment.
            () = self.stop.cancelled() => Ok(self.reader.has_read_all()),
        };
        Ok(match read {
            Ok(true) => Line::Read,
            Ok(false) => Line::Ended,
            Err(_) => Line::Unread,
        })
    }

    /// Waits until the reader has read a line whose message was handed back, so that the redelivered copy is not printed right after
    /// it. Returns false if the reader ends first.
    async fn read_late(&self, left: usize) -> bool {
        let left = counted(left, "message");
        (self.say)(&format!("the reader takes longer than --ack-wait: {left} handed back, to be printed again"));
        tokio::select! {
            read = self.reader.has_read() => read,
            () = self.stop.cancelled() => false,
        }
    }

    /// Acknowledges the first `read` messages of a batch, and hands the others back.
    async fn acknowledge(&self, batch: &LeasedBatch, read: usize) -> Result<(), Failure> {
        if !self.ack || batch.messages.is_empty() {
            return Ok(());
        }
        let status = |place| if place < read { AckStatus::Success } else { AckStatus::Release };
        let acks = batch.messages.iter().enumerate().map(|(place, message)| (message.handle.clone(), status(place)));
        let acks: Vec<_> = acks.collect();
        let outcome = match self.client.acknowledge_until(&self.source, &acks, batch.ends).await {
            // Nothing was read, so nothing is lost: the messages are redelivered when their lease ends.
            Err(_) if read == 0 => return Ok(()),
            outcome => outcome?,
        };
        if outcome.success < read {
            let lost = counted(read - outcome.success, "printed message");
            return Err(Failure::new(format!(
                "the service did not accept the acknowledgement of {lost}, which will be redelivered"
            )));
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{io::pipe, sync::Mutex, time::Duration};

    use super::*;
    use dms_worker::{
        client::ConsumeOptions,
        internal::consume_leased,
        queue::NewQueue,
        testing::{TestGroup, TestServer},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn source_of(group: &TestGroup) -> SourcePath {
        SourcePath::messages(group.queue_id().clone(), group.group_id().clone())
    }

    /// Settles the next batch of a group after `pause`, with a reader that reads nothing, and returns how much was printed.
    async fn settle(server: &TestServer, group: &TestGroup, poll_wait: Duration, pause: Duration) -> (usize, Printed) {
        let (_reader, writer) = pipe().unwrap();
        let lines = Mutex::new(0);
        let print = |line: &str| {
            use std::io::Write;
            *lines.lock().unwrap() += 1;
            Ok(writeln!(&writer, "{line}")?)
        };
        let stop = CancellationToken::new();
        let settling = Settling {
            client: server.client(),
            source: source_of(group),
            print: &print,
            say: &|_| (),
            reader: Reader::of_pipe(&writer),
            ack: true,
            stop: stop.clone(),
        };
        let options = ConsumeOptions::new().max_messages(2).poll_wait(poll_wait).ack_wait(SECOND * 15);
        let batch = consume_leased(&settling.client, &settling.source, &options).await.unwrap();
        assert_eq!(batch.messages.len(), 2);
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        let end = async {
            // Longer than any lease: without it, the line would be waited for without end.
            tokio::time::sleep(SECOND * 30).await;
            stop.cancel();
        };
        let (printed, ()) = tokio::join!(settling.settle(&batch), end);
        assert!(begun.elapsed() >= SECOND * 30);
        let count = *lines.lock().unwrap();
        (count, printed.unwrap())
    }

    /// A poll that takes longer than `--ack-wait` leaves time for what arrives at its end.
    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_arrival_of_its_messages() {
        let server = TestServer::start().await;
        let group = server.group(NewQueue::new("q").dead_letters_after(1), "g").await;
        let late = async {
            tokio::time::sleep(SECOND * 20).await;
            group.send(["one", "two"]).await;
        };
        let options = ConsumeOptions::new().poll_wait(SECOND * 60).ack_wait(SECOND * 15);
        let (client, source) = (server.client(), source_of(&group));
        let (batch, ()) = tokio::join!(consume_leased(&client, &source, &options), late);
        let left = batch.unwrap().due - Instant::now();
        assert!(left > SECOND * 12, "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_cannot_be_acknowledged_any_more_are_not_printed() {
        let server = TestServer::start().await;
        let group = server.group(NewQueue::new("q").dead_letters_after(1), "g").await;
        group.send(["one", "two"]).await;
        let (lines, printed) = settle(&server, &group, SECOND, SECOND * 14).await;
        assert_eq!((lines, printed.count), (0, 0));
    }

    /// Messages whose lines nobody reads are handed back: one copy of the first is in the pipe, and no failure is counted.
    #[tokio::test(start_paused = true)]
    async fn lines_that_are_not_read_in_time_are_handed_back() {
        let server = TestServer::start().await;
        let group = server.group(NewQueue::new("q").dead_letters_after(1), "g").await;
        group.send(["one", "two"]).await;
        let (lines, printed) = settle(&server, &group, SECOND, Duration::ZERO).await;
        assert_eq!((lines, printed.count), (1, 0));
        let counts = group.counts().await;
        assert_eq!((counts.available, counts.dead_letters), (2, 0));
    }
}
