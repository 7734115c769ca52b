//! [`Pump`]: lines into a producer, several on their way, each settled in its turn.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    input::{Input, Line},
    journal::{Journal, Progress},
    report::Report,
};
use crate::{
    cli::failure::Failure,
    message::Message,
    producer::{Producer, Receipt, SendError},
};

/// Lines that are read and not settled.
pub(crate) const WINDOW: usize = 100;
/// Requests on their way at once; one for FIFO queues, whose order must be the lines'.
pub(crate) const IN_FLIGHT: usize = 8;
/// Bytes of messages that wait or are on their way.
pub(crate) const MAX_PENDING_BYTES: usize = 8 * 1024 * 1024;

/// What becomes of a line before it is sent.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This is sent.
    Send(Message),
    /// It is left out on purpose.
    Skip,
    /// It cannot be sent, for this reason.
    Refuse(String),
    /// It is left, and so is everything behind it.
    Stop,
}

/// A line on its way.
struct Travelling {
    number: u64,
    /// Where the next line begins.
    end: u64,
    fate: Fate,
}

enum Fate {
    Sent(Receipt),
    Skipped,
    Refused(String),
}

/// Sends lines.
pub(crate) struct Pump<'a> {
    pub(crate) producer: Producer,
    pub(crate) journal: Option<Journal>,
    pub(crate) report: Report<'a>,
    /// Between two messages.
    pub(crate) interval: Duration,
    travelling: VecDeque<Travelling>,
    next_at: Instant,
}

impl<'a> Pump<'a> {
    pub(crate) fn new(producer: Producer, journal: Option<Journal>, report: Report<'a>) -> Self {
        let (travelling, next_at) = (VecDeque::new(), Instant::now());
        Self { producer, journal, report, interval: Duration::ZERO, travelling, next_at }
    }

    /// Sends every line that `choose` lets through, to the end or until `shutdown` is ready. Gives the report, and whether the
    /// end was reached.
    ///
    /// # Errors
    /// When the service is gone or refuses the caller, or the source or the journal fails. What was settled is in the
    /// journal then.
    pub(crate) async fn run(
        mut self,
        input: &mut Input,
        mut choose: impl FnMut(Message) -> Choice,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(Report<'a>, bool), Failure> {
        let result = {
            let mut shutdown = std::pin::pin!(shutdown);
            let going = std::pin::pin!(self.go(input, &mut choose));
            tokio::select! {
                result = going => result,
                () = &mut shutdown => Ok(false),
            }
        };
        let result = match result {
            // What was handed over is sent in any case: its results are worth the wait.
            Ok(false) => self.settle_down_to(0).await.map(|()| false),
            result => result,
        };
        if let Ok(true) = result {
            if let Some(journal) = self.journal {
                journal.complete().await?;
            }
            return Ok((self.report, true));
        }
        let settled = self.travelling.is_empty();
        let journal = match self.journal {
            Some(journal) => journal.stop(settled).await,
            None => None,
        };
        self.report.stopped(journal.as_deref());
        result.map(|ended| (self.report, ended))
    }

    async fn go(&mut self, input: &mut Input, choose: &mut dyn FnMut(Message) -> Choice) -> Result<bool, Failure> {
        while let Some(line) = input.next().await? {
            self.settle_down_to(WINDOW - 1).await?;
            let Line { number, bytes, end, message } = line;
            self.report.read(bytes);
            let fate = match message.map(&mut *choose).unwrap_or_else(Choice::Refuse) {
                Choice::Send(message) => self.hand_over(number, message).await?,
                Choice::Skip => Fate::Skipped,
                Choice::Refuse(reason) => Fate::Refused(reason),
                Choice::Stop => {
                    self.settle_down_to(0).await?;
                    return Ok(false);
                }
            };
            self.travelling.push_back(Travelling { number, end, fate });
        }
        self.settle_down_to(0).await?;
        Ok(true)
    }

    async fn hand_over(&mut self, number: u64, message: Message) -> Result<Fate, Failure> {
        if !self.interval.is_zero() {
            sleep_until(self.next_at).await;
            self.next_at = self.next_at.max(Instant::now()) + self.interval;
        }
        if let Some(journal) = &mut self.journal {
            journal.admit(number).await?;
        }
        match self.producer.accept(message).await {
            Ok(receipt) => Ok(Fate::Sent(receipt)),
            Err(error) => Ok(Fate::Refused(error.to_string())),
        }
    }

    /// Waits for the first lines until no more than so many are on their way.
    async fn settle_down_to(&mut self, most: usize) -> Result<(), Failure> {
        while self.travelling.len() > most {
            // A line stays in its place until it is settled, so that dropping this loses none.
            let Some(first) = self.travelling.front_mut() else { return Ok(()) };
            let (number, end) = (first.number, first.end);
            let fate = match &mut first.fate {
                Fate::Sent(receipt) => match receipt.await {
                    Ok(id) => Ok(Some(id)),
                    Err(error) if ends_the_run(&error) => return Err(self.failure(number, error)),
                    Err(error) => Err((error.to_string(), error.is_unsure())),
                },
                Fate::Skipped => Ok(None),
                Fate::Refused(reason) => Err((std::mem::take(reason), false)),
            };
            self.travelling.pop_front();
            let count = match fate {
                Ok(Some(id)) => {
                    self.report.sent(id.as_ref())?;
                    |progress: &mut Progress| progress.sent += 1
                }
                Ok(None) => {
                    self.report.skipped();
                    |progress: &mut Progress| progress.skipped += 1
                }
                Err((reason, unsure)) => {
                    self.report.refused(number, &reason, unsure);
                    |progress: &mut Progress| progress.refused += 1
                }
            };
            if let Some(journal) = &mut self.journal {
                let note = |progress: &mut Progress| {
                    (progress.line, progress.offset) = (number, end);
                    count(progress);
                };
                journal.settled(note).await?;
            }
        }
        Ok(())
    }

    fn failure(&self, number: u64, error: SendError) -> Failure {
        let failure = match error {
            SendError::Call(error) => Failure::from(error),
            other => Failure::new(other.to_string()),
        };
        Failure::of(failure.kind(), format!("line {number}: {failure}"))
    }
}

/// Whether what befell one line would befall every other: the service is gone, in trouble, or refuses the caller or the
/// queue.
fn ends_the_run(error: &SendError) -> bool {
    match error {
        SendError::Call(error) if error.is_unsure() => false,
        SendError::Call(error) => {
            error.is_retryable()
                || error.is_connect()
                || error.is_auth()
                || error.is_forbidden()
                || error.is_not_found()
        }
        SendError::Closed | SendError::Abandoned => true,
        SendError::Limit(_) => false,
    }
}
