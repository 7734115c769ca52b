//! [`Pump`]: lines into a producer, several on their way, each settled in its turn.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::cli::{
    commands::send::{
        input::{Input, InputLine},
        journal::{Journal, JournalState},
        rejected::Rejected,
        report::Report,
    },
    support::failure::{ExitKind, Failure},
};
use dms_protocol::message::Message;
use dms_worker::producer::{Producer, SendError, SendFuture};

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
    /// Neither this line nor any after it is sent.
    Stop,
}

/// A line on its way.
struct InFlightLine {
    number: u64,
    /// Where the next line begins.
    end: u64,
    /// Its text, if refused lines are kept.
    text: Option<Vec<u8>>,
    outcome: LineOutcome,
}

enum LineOutcome {
    Sent(SendFuture),
    Skipped,
    Refused(String),
    /// What befell it ended the run.
    Left {
        unsure: bool,
    },
}

/// Sends lines.
pub(crate) struct Pump<'a> {
    pub(crate) producer: Producer,
    pub(crate) journal: Option<Journal>,
    pub(crate) report: Report<'a>,
    /// Where lines go that are refused.
    pub(crate) rejected: Option<Rejected>,
    /// Between two messages.
    pub(crate) interval: Duration,
    travelling: VecDeque<InFlightLine>,
    next_at: Instant,
}

impl<'a> Pump<'a> {
    pub(crate) fn new(producer: Producer, journal: Option<Journal>, report: Report<'a>) -> Self {
        let (travelling, next_at) = (VecDeque::new(), Instant::now());
        Self { producer, journal, report, rejected: None, interval: Duration::ZERO, travelling, next_at }
    }

    /// Sends every line that `choose` lets through, to the end or until `shutdown` is ready. Gives the report, and whether the
    /// end was reached.
    ///
    /// # Errors
    /// When the service cannot be reached, fails or refuses the caller, or the source or the journal fails. The journal then has the
    /// settled lines.
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
            Ok(true) => Ok(true),
            // Lines that the producer has accepted are sent in any case, so their results are awaited.
            stopped => self.settle_down_to(0).await.and(stopped),
        };
        match result {
            Ok(true) => self.complete().await.map(|report| (report, true)),
            Ok(false) => self.stop().await.map(|(report, _)| (report, false)),
            Err(failure) => {
                let (_, rest) = self.stop().await?;
                Err(rest.tell(failure))
            }
        }
    }

    /// Every line is settled.
    async fn complete(mut self) -> Result<Report<'a>, Failure> {
        // Before the journal goes, which would bring them again.
        self.report.rejected = self.rejected.map(Rejected::finish).transpose()?.flatten();
        if let Some(journal) = self.journal {
            journal.complete().await?;
        }
        Ok(self.report)
    }

    /// Ends the run early. Returns the unsent lines if no journal records them.
    async fn stop(mut self) -> Result<(Report<'a>, UnsentLines), Failure> {
        let rest = self.leave().await?;
        self.report.rejected = self.rejected.map(Rejected::finish).transpose()?.flatten();
        let (journal, resumable) = match self.journal {
            Some(journal) => (journal.stop(rest.is_sure).await, true),
            None => (None, false),
        };
        self.report.stopped(journal.as_deref());
        let rest =
            if resumable { UnsentLines::default() } else { UnsentLines { kept: self.report.rejected.clone(), ..rest } };
        Ok((self.report, rest))
    }

    /// Waits for the results of the lines after the line that ended the run. With a journal, a later run sends them again. Without one,
    /// each counts by its result, and lines that were not stored are written where refused lines are written.
    async fn leave(&mut self) -> Result<UnsentLines, Failure> {
        let mut rest = UnsentLines { is_sure: true, ..UnsentLines::default() };
        for InFlightLine { number, text, outcome, .. } in std::mem::take(&mut self.travelling) {
            let sent = match outcome {
                LineOutcome::Sent(receipt) => receipt.await.map_err(|error| error.is_unsure()),
                LineOutcome::Left { unsure } => Err(unsure),
                LineOutcome::Skipped | LineOutcome::Refused(_) if self.journal.is_some() => continue,
                LineOutcome::Skipped => {
                    self.report.skipped();
                    continue;
                }
                LineOutcome::Refused(reason) => {
                    self.refuse(number, text.as_deref(), &reason, false)?;
                    continue;
                }
            };
            rest.is_sure &= matches!(sent, Err(false));
            match sent {
                _ if self.journal.is_some() => {}
                Ok(sent) => self.report.sent(&sent)?,
                Err(unsure) => {
                    rest.add(number, unsure);
                    self.keep(text.as_deref())?;
                }
            }
        }
        Ok(rest)
    }

    fn refuse(&mut self, number: u64, text: Option<&[u8]>, reason: &str, unsure: bool) -> Result<(), Failure> {
        self.keep(text)?;
        self.report.refused(number, reason, unsure);
        Ok(())
    }

    fn keep(&mut self, text: Option<&[u8]>) -> Result<(), Failure> {
        match (&mut self.rejected, text) {
            (Some(rejected), Some(text)) => rejected.add(text),
            _ => Ok(()),
        }
    }

    /// The bytes of lines that are kept until it is known how they fare.
    fn held(&self) -> usize {
        self.travelling.iter().filter_map(|line| line.text.as_ref()).map(Vec::len).sum()
    }

    async fn go(&mut self, input: &mut Input, choose: &mut dyn FnMut(Message) -> Choice) -> Result<bool, Failure> {
        while let Some(line) = input.next().await? {
            self.settle_down_to(WINDOW - 1).await?;
            while self.held() > MAX_PENDING_BYTES {
                self.settle_down_to(self.travelling.len() - 1).await?;
            }
            let InputLine { number, bytes, end, message, is_left, text } = line;
            self.report.read(bytes);
            let choice = if is_left { Choice::Skip } else { message.map(&mut *choose).unwrap_or_else(Choice::Refuse) };
            let outcome = match choice {
                Choice::Send(message) => self.hand_over(number, message).await?,
                Choice::Skip => LineOutcome::Skipped,
                Choice::Refuse(reason) => LineOutcome::Refused(reason),
                Choice::Stop => {
                    self.settle_down_to(0).await?;
                    return Ok(false);
                }
            };
            self.travelling.push_back(InFlightLine { number, end, text, outcome });
        }
        self.settle_down_to(0).await?;
        Ok(true)
    }

    async fn hand_over(&mut self, number: u64, message: Message) -> Result<LineOutcome, Failure> {
        if !self.interval.is_zero() {
            sleep_until(self.next_at).await;
            self.next_at = self.next_at.max(Instant::now()) + self.interval;
        }
        if let Some(journal) = &mut self.journal {
            journal.admit(number).await?;
        }
        match self.producer.enqueue(message).await {
            Ok(receipt) => Ok(LineOutcome::Sent(receipt)),
            Err(error) => Ok(LineOutcome::Refused(error.to_string())),
        }
    }

    /// Waits until at most `most` lines are in flight.
    async fn settle_down_to(&mut self, most: usize) -> Result<(), Failure> {
        while self.travelling.len() > most {
            // A line stays in its place until it is settled, so that dropping this loses none.
            let Some(first) = self.travelling.front_mut() else { return Ok(()) };
            let (number, end) = (first.number, first.end);
            let outcome = match &mut first.outcome {
                LineOutcome::Sent(receipt) => match receipt.await {
                    Ok(sent) => Ok(Some(sent)),
                    Err(error) if ends_the_run(&error) => {
                        first.outcome = LineOutcome::Left { unsure: error.is_unsure() };
                        return Err(failure(number, error));
                    }
                    Err(error) => Err((error.to_string(), error.is_unsure())),
                },
                LineOutcome::Skipped => Ok(None),
                LineOutcome::Refused(reason) => Err((std::mem::take(reason), false)),
                LineOutcome::Left { .. } => return Ok(()),
            };
            let text = self.travelling.pop_front().and_then(|line| line.text);
            let count = match outcome {
                Ok(Some(sent)) => {
                    self.report.sent(&sent)?;
                    |progress: &mut JournalState| progress.sent += 1
                }
                Ok(None) => {
                    self.report.skipped();
                    |progress: &mut JournalState| progress.skipped += 1
                }
                Err((reason, unsure)) => {
                    self.refuse(number, text.as_deref(), &reason, unsure)?;
                    |progress: &mut JournalState| progress.refused += 1
                }
            };
            if let Some(journal) = &mut self.journal {
                let note = |progress: &mut JournalState| {
                    (progress.line, progress.offset) = (number, end);
                    count(progress);
                };
                journal.settled(note).await?;
            }
        }
        Ok(())
    }
}

/// The lines that a run without a journal leaves.
#[derive(Debug, Default)]
struct UnsentLines {
    /// The first and the last that is not stored, and how many are not.
    lines: Option<(u64, u64)>,
    count: u64,
    /// How many of them may be stored all the same.
    unsure: u64,
    /// Whether it is known of all that they are not stored.
    is_sure: bool,
    /// Where they are.
    kept: Option<PathBuf>,
}

impl UnsentLines {
    fn add(&mut self, number: u64, unsure: bool) {
        self.lines = Some((self.lines.map_or(number, |(first, _)| first), number));
        self.count += 1;
        self.unsure += u64::from(unsure);
    }

    /// The failure that ended the run, with the lines that were not sent.
    fn tell(&self, failure: Failure) -> Failure {
        let Some((first, last)) = self.lines else { return failure };
        let lines = match self.count {
            1 => format!("line {first}"),
            count if count == last - first + 1 => format!("lines {first} to {last}"),
            count => format!("{count} of the lines {first} to {last}"),
        };
        let are = if self.count == 1 { "is" } else { "are" };
        let mut text = match self.unsure {
            0 => format!("{failure}. Not stored: {lines}"),
            unsure if unsure == self.count => format!("{failure}. It is not known whether {lines} {are} stored"),
            unsure => format!("{failure}. Not stored, or not known to be: {lines} ({unsure} of them are not known)"),
        };
        if let Some(kept) = &self.kept {
            text.push_str(&format!("; see {}", kept.display()));
        }
        failure.saying(text)
    }
}

fn failure(number: u64, error: SendError) -> Failure {
    let outage = error.is_retryable();
    let failure = match error {
        SendError::Call(error) => Failure::from(error),
        other => Failure::new(other.to_string()),
    };
    let kind = if outage && failure.kind() == ExitKind::Failed { ExitKind::Outage } else { failure.kind() };
    let text = format!("line {number}: {failure}");
    failure.into_kind(kind).saying(text)
}

/// Whether what befell one line would befall every other: the service is gone, in trouble, or refuses the caller or the
/// queue.
fn ends_the_run(error: &SendError) -> bool {
    match error {
        SendError::Call(error) => {
            error.is_retryable()
                || error.is_connect()
                || error.is_auth()
                || error.is_forbidden()
                || error.is_not_found()
        }
        SendError::Closed | SendError::Abandoned => true,
        _ => false,
    }
}
