//! Going once through the messages of a group: [`Sweep`] consumes, asks a [`Visitor`], and acknowledges what it has done.
//!
//! An acknowledgement of a part of a batch fails the rest of it, so a message that is not wanted would block those behind
//! it. It is passed over by holding its lease: what comes next is consumed meanwhile, and at the end it is given back.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, ConsumeOptions, Error},
    later::after,
    limits::{self, ACK_WAIT_SECS, LimitError, MAX_MESSAGES},
    message::{AckHandle, AckStatus, ReceivedMessage},
    queue::{QueueMode, SourcePath, Stream, TagFilter},
    retry::{RetryPolicy, Schedule},
};

/// How long an empty stream is waited on before it counts as empty.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// How much of a lease is kept for the acknowledgement to arrive.
const MARGIN: Duration = Duration::from_secs(2);
/// How many messages more than there were at the start are gone through: some may have been leased by others then, but
/// a stream that is filled as fast as it is emptied must come to an end.
const SLACK: u64 = 1_000;
/// How long a service in trouble is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a sweep does with the messages.
#[async_trait]
pub trait Visitor: Send {
    /// Whether this message is taken. Asked again when a message comes again.
    fn wants(&self, message: &ReceivedMessage) -> bool;

    /// Does the work for messages that are wanted, in their order, and says how many of the first ones are done and may be
    /// acknowledged. None: the first one cannot be done, and is passed over.
    ///
    /// # Errors
    /// What makes going on pointless; it ends the sweep.
    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error>;

    /// Hears of a message that stays where it is.
    fn passed_over(&mut self, message: &ReceivedMessage);
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Messages that could be consumed at the start.
    pub expected: u64,
    /// Taken by the visitor, and acknowledged.
    pub taken: u64,
    /// Left where they are, wanted or not.
    pub passed_over: u64,
    /// Taken, and perhaps not acknowledged: they may come again.
    pub doubled: u64,
}

/// A sweep that ended early.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SweepError {
    /// What was done before.
    pub report: SweepReport,
    /// Why it ended.
    pub source: Error,
}

/// Settings of a pass through the messages or the dead letters of a group.
pub struct Sweep {
    client: Client,
    source: SourcePath,
    filter: TagFilter,
    ack_wait: Duration,
    max: u64,
    interval: Duration,
    linger: Duration,
    /// How long it goes on although nothing comes, counted from its start.
    at_least: Duration,
    progress: Box<dyn FnMut(&SweepReport) + Send>,
}

impl Sweep {
    /// A pass through `source`, as fast as may be, with leases of 60 s, to the first poll that brings nothing.
    pub fn new(client: Client, source: SourcePath) -> Self {
        Self {
            client,
            source,
            filter: TagFilter::default(),
            ack_wait: Duration::from_secs(60),
            max: u64::MAX,
            interval: Duration::ZERO,
            linger: Duration::ZERO,
            at_least: Duration::ZERO,
            progress: Box::new(|_| {}),
        }
    }

    /// How long messages are leased, 15-300 s; 60 s by default. After a crash the messages on their way come again when it
    /// is over; what is passed over is held for no longer than it.
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = ack_wait;
        self
    }

    /// The label rule of the group, if it has one; not for dead letters.
    pub fn filter(mut self, filter: TagFilter) -> Self {
        self.filter = filter;
        self
    }

    /// At most this many messages are taken; all by default.
    pub fn max(mut self, messages: impl Into<Option<u64>>) -> Self {
        self.max = messages.into().unwrap_or(u64::MAX);
        self
    }

    /// At most this many messages per second; unbounded by default, as for a rate that is no positive number.
    pub fn rate(mut self, per_second: impl Into<Option<f64>>) -> Self {
        let interval = per_second.into().and_then(|rate| Duration::try_from_secs_f64(rate.recip()).ok());
        self.interval = interval.unwrap_or(Duration::ZERO);
        self
    }

    /// How long nothing may come before the sweep is over; zero by default. A lease of somebody else, such as a sweep that
    /// was killed, cannot be seen: to leave nothing behind, wait as long as it may last.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Goes on for so long although nothing comes: until then messages may be leased by a run that was killed.
    pub(super) fn at_least(mut self, time: Duration) -> Self {
        self.at_least = time;
        self
    }

    /// How long messages are leased.
    pub(super) fn lease(&self) -> Duration {
        self.ack_wait
    }

    /// What is gone through, for people.
    pub(super) fn source(&self) -> String {
        let what = match self.source.stream {
            Stream::Messages => "messages",
            Stream::DeadLetters => "dead letters",
        };
        format!("{what} of group {} of queue {}", self.source.group, self.source.queue)
    }

    /// Calls `progress` after each batch.
    pub fn on_progress(mut self, progress: impl FnMut(&SweepReport) + Send + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Goes through the messages that are there now, until `shutdown` is ready.
    ///
    /// In a FIFO queue nothing can be passed over: there the sweep ends at the first message that is not taken.
    ///
    /// # Errors
    /// When a setting is outside the limits, the visitor ends it, or the service is out of reach for a minute.
    pub async fn run(
        self,
        visitor: &mut dyn Visitor,
        shutdown: impl Future<Output = ()>,
    ) -> Result<SweepReport, SweepError> {
        let stop = CancellationToken::new();
        let mut pass = Pass::new(self, stop.clone());
        let result = {
            let mut going = std::pin::pin!(pass.go(visitor));
            tokio::select! {
                result = &mut going => result,
                () = shutdown => {
                    stop.cancel();
                    going.await
                },
            }
        };
        pass.release().await;
        let report = pass.report;
        result.map(|()| report).map_err(|source| SweepError { report, source })
    }

    fn check(&self) -> Result<(), LimitError> {
        limits::seconds("ack_wait", self.ack_wait, &ACK_WAIT_SECS)
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("source", &self.source).field("max", &self.max).finish_non_exhaustive()
    }
}

/// A sweep under way.
struct Pass {
    sweep: Sweep,
    stop: CancellationToken,
    report: SweepReport,
    fifo: bool,
    /// Messages that are passed over, leased until the end or until their lease ends.
    held: Vec<(AckHandle, Instant)>,
    /// Whether the next message is consumed alone, because its batch could not be taken whole.
    alone: bool,
    next_at: Instant,
    /// From when on a poll that brings nothing ends the sweep: messages that were leased by a lost answer come before.
    over_at: Instant,
    /// Since when nothing has come.
    empty_since: Option<Instant>,
    schedule: Schedule,
}

impl Pass {
    fn new(sweep: Sweep, stop: CancellationToken) -> Self {
        let linger = sweep.linger.max(sweep.at_least);
        Self {
            sweep,
            stop,
            report: SweepReport::default(),
            fifo: false,
            held: Vec::new(),
            alone: false,
            next_at: Instant::now(),
            over_at: after(Instant::now(), linger),
            empty_since: None,
            schedule: RetryPolicy::default().max_attempts(None).schedule(),
        }
    }

    async fn go(&mut self, visitor: &mut dyn Visitor) -> Result<(), Error> {
        self.sweep.check().map_err(|error| Error::limit("sweep", error))?;
        self.fifo = self.sweep.client.queue(&self.sweep.source.queue).await?.mode == QueueMode::Fifo;
        self.report.expected = self.waiting().await?;
        while let Some(batch) = self.next().await? {
            if batch.is_empty() {
                if self.is_over() {
                    return Ok(());
                }
                continue;
            }
            self.empty_since = None;
            self.wait_until(after(Instant::now(), self.sweep.linger));
            self.visit(batch, visitor).await?;
            (self.sweep.progress)(&self.report);
            if self.cannot_hold_more() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether what is passed over would come again: nothing can be passed over in a FIFO queue, and no lease lasts for ever.
    fn cannot_hold_more(&self) -> bool {
        let now = Instant::now();
        self.held.first().is_some_and(|(_, until)| self.fifo || *until <= now)
    }

    /// Whether a poll that brought nothing is the last one. On a bad line each may lose an answer with messages in it: two
    /// leases are waited for, and not more.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.empty_since.get_or_insert(now);
        now >= self.over_at || now >= after(since, self.sweep.linger.max(self.sweep.at_least)) + 2 * self.sweep.ack_wait
    }

    fn wait_until(&mut self, instant: Instant) {
        self.over_at = self.over_at.max(instant);
    }

    /// The next batch; empty when none came, none when the sweep is at its end.
    async fn next(&mut self) -> Result<Option<Vec<ReceivedMessage>>, Error> {
        let seen = self.report.taken + self.report.passed_over;
        let left = (self.sweep.max - self.report.taken).min(self.report.expected.saturating_add(SLACK) - seen);
        let most = if self.alone { 1 } else { MAX_MESSAGES };
        let want = usize::try_from(left).unwrap_or(most).min(most);
        if want == 0 {
            return Ok(None);
        }
        if !self.pause(self.next_at).await {
            return Ok(None);
        }
        // A poll is short, and dropping it might leave messages leased that nobody has.
        self.consume(want).await.map(Some)
    }

    /// Sleeps until `until`; false when the sweep is stopped.
    async fn pause(&self, until: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = sleep_until(until) => true,
        }
    }

    /// Consumes, waiting for a service in trouble. What is paced is the consuming, so that no lease runs meanwhile.
    async fn consume(&mut self, want: usize) -> Result<Vec<ReceivedMessage>, Error> {
        let options = ConsumeOptions::new()
            .max_messages(want)
            .poll_wait(POLL_WAIT)
            .ack_wait(self.sweep.ack_wait)
            .filter(self.sweep.filter.clone());
        let give_up = Instant::now() + PATIENCE;
        loop {
            let error = match self.sweep.client.consume(&self.sweep.source, &options).await {
                Ok(batch) => {
                    self.schedule.reset();
                    let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                    self.next_at = self.next_at.max(Instant::now()) + self.sweep.interval * count;
                    return Ok(batch);
                }
                Err(error) => error,
            };
            if error.is_unsure() {
                self.wait_until(Instant::now() + self.sweep.ack_wait + MARGIN);
            }
            let again = self.schedule.next_delay().map(|pause| Instant::now() + pause);
            match again.filter(|again| error.is_retryable() && *again < give_up) {
                Some(again) if self.pause(again).await => {}
                _ => return Err(error),
            }
        }
    }

    /// How many messages can be consumed.
    async fn waiting(&self) -> Result<u64, Error> {
        let group = self.sweep.client.find_group(&self.sweep.source.queue, self.sweep.source.group.as_str()).await?;
        Ok(match self.sweep.source.stream {
            Stream::Messages => group.available_messages,
            Stream::DeadLetters => group.available_dead_letters.unwrap_or_default(),
        })
    }

    async fn visit(&mut self, batch: Vec<ReceivedMessage>, visitor: &mut dyn Visitor) -> Result<(), Error> {
        let until = Instant::now() + self.sweep.ack_wait - MARGIN;
        let wanted = batch.iter().take_while(|message| visitor.wants(message)).count();
        if wanted == 0 {
            if batch.iter().any(|message| visitor.wants(message)) {
                return self.part(&batch, 0, until).await;
            }
            self.hold(&batch, until, visitor);
            return Ok(());
        }
        let done = match visitor.take(&batch[..wanted]).await {
            Ok(done) => done.min(wanted),
            Err(error) => {
                self.give_back(&batch, until).await;
                return Err(error);
            }
        };
        if done == 0 && batch.len() == 1 {
            self.hold(&batch, until, visitor);
            return Ok(());
        }
        self.part(&batch, done, until).await
    }

    /// Acknowledges the first messages of a batch. The rest comes again, its first one alone.
    async fn part(&mut self, batch: &[ReceivedMessage], done: usize, until: Instant) -> Result<(), Error> {
        self.alone = done < batch.len();
        if done == 0 {
            self.give_back(batch, until).await;
            return Ok(());
        }
        let acks: Vec<_> = batch[..done].iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
        let settled = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await;
        let success = match settled {
            Ok(outcome) => outcome.success.min(done),
            Err(error) if error.is_auth() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, messages = done, "the messages were taken and may come again");
                self.wait_until(until + 2 * MARGIN);
                0
            }
        };
        self.report.taken += success as u64;
        self.report.doubled += (done - success) as u64;
        Ok(())
    }

    fn hold(&mut self, batch: &[ReceivedMessage], until: Instant, visitor: &mut dyn Visitor) {
        self.alone = false;
        for message in batch {
            visitor.passed_over(message);
        }
        self.report.passed_over += batch.len() as u64;
        self.held.extend(batch.iter().map(|message| (message.handle.clone(), until)));
    }

    /// Gives a batch back, so that it can be consumed again at once. What cannot be given back comes when its lease ends.
    async fn give_back(&mut self, batch: &[ReceivedMessage], until: Instant) {
        let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Fail)).collect();
        if let Err(error) = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await {
            tracing::debug!(%error, messages = batch.len(), "the messages come again when their lease ends");
            self.wait_until(until + 2 * MARGIN);
        }
    }

    /// Gives back what was passed over.
    async fn release(&mut self) {
        let now = Instant::now();
        let held: Vec<_> = self.held.drain(..).filter(|(_, until)| *until > now).collect();
        for chunk in held.chunks(MAX_MESSAGES) {
            let acks: Vec<_> = chunk.iter().map(|(handle, _)| (handle.clone(), AckStatus::Fail)).collect();
            let until = chunk.iter().map(|(_, until)| *until).max().unwrap_or(now);
            if let Err(error) = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await {
                tracing::debug!(%error, messages = chunk.len(), "the messages come again when their lease ends");
            }
        }
    }
}
