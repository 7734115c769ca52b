//! [`Sweep`]: one pass through the messages of a group. It consumes messages, hands them to a [`Visitor`], and
//! acknowledges the messages that the visitor has done.
//!
//! An acknowledgement of a part of a batch fails the rest of it, so an unwanted message would block the messages after
//! it. The sweep therefore holds the lease of an unwanted message, consumes the next ones meanwhile, and gives the
//! message back at the end.

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
    wire::Dialect,
    worker::wrapped::unwrap,
};

/// The poll wait: an empty answer after this time means that the stream is empty.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// The end of a lease that is reserved for the acknowledgement.
const MARGIN: Duration = Duration::from_secs(2);
/// The messages to visit beyond those available at the start. Some may have been leased by others then, but the sweep
/// of a stream that is filled while it is emptied must end.
const EXTRA_VISITS: u64 = 1_000;
/// The longest outage of the service that a sweep waits for.
const MAX_OUTAGE: Duration = Duration::from_secs(60);

/// Decides about the messages of a [`Sweep`] and works on them.
#[async_trait]
pub trait Visitor: Send {
    /// Returns whether to visit this message. Called again for a redelivered message.
    fn wants(&self, message: &ReceivedMessage) -> bool;

    /// Works on wanted messages, in order. Returns how many of them, from the front, are done and may be acknowledged.
    /// If none is, the first one is passed over.
    ///
    /// # Errors
    /// An error ends the sweep.
    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error>;

    /// Called for a message that stays in the stream.
    fn passed_over(&mut self, message: &ReceivedMessage);

    /// The number of messages that count towards [`Sweep::max`]. Default: all visited and acknowledged messages.
    fn counts_towards_max(&self, report: &SweepReport) -> u64 {
        report.taken
    }
}

/// The result of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Messages that were available at the start; `u64::MAX` if the service does not say it.
    pub expected: u64,
    /// Messages that were visited and acknowledged.
    pub taken: u64,
    /// Messages that stayed in the stream.
    pub passed_over: u64,
    /// Messages that were visited and whose acknowledgement may be lost, so that they may be redelivered.
    pub doubled: u64,
}

/// A sweep that ended early.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SweepError {
    /// The result until then.
    pub report: SweepReport,
    /// The error that ended the sweep.
    pub source: Error,
}

/// One pass through the messages or the dead letters of a group.
pub struct Sweep {
    client: Client,
    source: SourcePath,
    filter: TagFilter,
    ack_wait: Duration,
    max: u64,
    interval: Duration,
    linger: Duration,
    /// Whether documents of parked messages are read as these messages.
    parked: bool,
    /// The shortest duration of the sweep.
    at_least: Duration,
    progress: Box<dyn FnMut(&SweepReport) + Send>,
}

impl Sweep {
    /// A pass through `source` at full speed, with leases of 60 s, until the first empty poll.
    pub fn new(client: Client, source: SourcePath) -> Self {
        Self {
            client,
            source,
            filter: TagFilter::default(),
            ack_wait: Duration::from_secs(60),
            max: u64::MAX,
            interval: Duration::ZERO,
            linger: Duration::ZERO,
            parked: false,
            at_least: Duration::ZERO,
            progress: Box::new(|_| {}),
        }
    }

    /// The lease of the messages, 15-300 s; 60 s by default. After a crash the messages in flight are redelivered when
    /// it ends. Messages that are passed over are leased no longer than this.
    pub fn ack_wait(mut self, ack_wait: Duration) -> Self {
        self.ack_wait = ack_wait;
        self
    }

    /// The label filter of the group, if it has one; none by default. Not for dead letters.
    pub fn filter(mut self, filter: TagFilter) -> Self {
        self.filter = filter;
        self
    }

    /// The most messages to visit, as [`Visitor::counts_towards_max`] counts them; no limit by default.
    pub fn max(mut self, messages: impl Into<Option<u64>>) -> Self {
        self.max = messages.into().unwrap_or(u64::MAX);
        self
    }

    /// The most messages per second; no limit by default, and for a rate that is not positive.
    pub fn rate(mut self, per_second: impl Into<Option<f64>>) -> Self {
        let interval = per_second.into().and_then(|rate| Duration::try_from_secs_f64(rate.recip()).ok());
        self.interval = interval.unwrap_or(Duration::ZERO);
        self
    }

    /// How long the stream must stay empty before the sweep ends; zero by default. Leases of others, such as a killed
    /// sweep, are invisible: set their length to miss no message.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Reads the documents, in which a worker over ROMA Connect MQS parks messages with their history, as the messages that they
    /// have; off by default. Other messages are not changed.
    pub fn parked(mut self, on: bool) -> Self {
        self.parked = on;
        self
    }

    pub(super) fn stream(&self) -> Stream {
        self.source.stream
    }

    /// Continues for at least this time, also when the stream is empty; zero by default. For a sweep that continues a killed
    /// one, whose messages are leased until then.
    pub fn at_least(mut self, time: Duration) -> Self {
        self.at_least = self.at_least.max(time);
        self
    }

    /// The lease of the messages; see [`ack_wait`](Self::ack_wait).
    pub fn lease(&self) -> Duration {
        self.ack_wait
    }

    /// A description of the source for people.
    pub(super) fn source(&self) -> String {
        let what = match self.source.stream {
            Stream::Messages => "messages",
            Stream::DeadLetters => "dead letters",
        };
        format!("{what} of group {} of queue {}", self.source.group, self.source.queue)
    }

    /// Calls `progress` after each batch; by default nothing is called.
    pub fn on_progress(mut self, progress: impl FnMut(&SweepReport) + Send + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Visits the messages that exist now, until `shutdown` resolves.
    ///
    /// In a FIFO queue no message can be passed over, so the sweep ends at the first unwanted message.
    ///
    /// # Errors
    /// When a setting is outside its limits, the visitor returns an error, or the service is unreachable for a minute.
    ///
    /// # Cancel safety
    /// Dropping the future stops the sweep at once. Leased messages are available again when their lease ends.
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

/// A running sweep.
struct Pass {
    sweep: Sweep,
    stop: CancellationToken,
    report: SweepReport,
    fifo: bool,
    /// Messages that were passed over and are still leased.
    leased: Vec<(AckHandle, Instant)>,
    /// Whether the next poll asks for one message, because its batch was not done as a whole.
    single: bool,
    next_at: Instant,
    /// When an empty poll ends the sweep. Messages that a lost answer leased are redelivered before.
    over_at: Instant,
    /// Since when polls have been empty.
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
            leased: Vec::new(),
            single: false,
            next_at: Instant::now(),
            over_at: after(Instant::now(), linger),
            empty_since: None,
            schedule: RetryPolicy::default().max_attempts(None).schedule(),
        }
    }

    async fn go(&mut self, visitor: &mut dyn Visitor) -> Result<(), Error> {
        self.sweep.check().map_err(|error| Error::limit("sweep", error))?;
        self.fifo = self.is_fifo().await?;
        self.report.expected = self.waiting().await?;
        while let Some(batch) = self.next(visitor).await? {
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

    /// Returns whether messages that are passed over would be redelivered during the sweep: always in a FIFO queue, and
    /// when their lease ends.
    fn cannot_hold_more(&self) -> bool {
        let now = Instant::now();
        self.leased.first().is_some_and(|(_, until)| self.fifo || *until <= now)
    }

    /// Returns whether an empty poll is the last one. With a bad connection each poll may lose an answer with messages,
    /// so the sweep waits for two leases and no more.
    fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.empty_since.get_or_insert(now);
        now >= self.over_at || now >= after(since, self.sweep.linger.max(self.sweep.at_least)) + 2 * self.sweep.ack_wait
    }

    fn wait_until(&mut self, instant: Instant) {
        self.over_at = self.over_at.max(instant);
    }

    /// The next batch; empty after an empty poll, `None` at the end of the sweep.
    async fn next(&mut self, visitor: &dyn Visitor) -> Result<Option<Vec<ReceivedMessage>>, Error> {
        let seen = self.report.taken + self.report.passed_over;
        let wanted = self.sweep.max.saturating_sub(visitor.counts_towards_max(&self.report));
        let left = wanted.min(self.report.expected.saturating_add(EXTRA_VISITS).saturating_sub(seen));
        let most = if self.single { 1 } else { MAX_MESSAGES };
        let want = usize::try_from(left).unwrap_or(most).min(most);
        if want == 0 {
            return Ok(None);
        }
        if !self.pause(self.next_at).await {
            return Ok(None);
        }
        // A poll is short, and dropping it could leave messages leased without a consumer.
        self.consume(want).await.map(Some)
    }

    /// Sleeps until `until`. Returns false if the sweep is stopped.
    async fn pause(&self, until: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = sleep_until(until) => true,
        }
    }

    /// Consumes a batch and waits out outages. The rate limit delays consuming, so that no lease runs meanwhile.
    async fn consume(&mut self, want: usize) -> Result<Vec<ReceivedMessage>, Error> {
        let options = ConsumeOptions::new()
            .max_messages(want)
            .poll_wait(POLL_WAIT)
            .ack_wait(self.sweep.ack_wait)
            .filter(self.sweep.filter.clone());
        let give_up = Instant::now() + MAX_OUTAGE;
        loop {
            let error = match self.sweep.client.consume(&self.sweep.source, &options).await {
                Ok(mut batch) => {
                    if self.sweep.parked {
                        batch.iter_mut().for_each(unwrap);
                    }
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

    async fn is_fifo(&self) -> Result<bool, Error> {
        match self.sweep.client.dialect() {
            Dialect::Dms => Ok(self.sweep.client.queue(&self.sweep.source.queue).await?.mode == QueueMode::Fifo),
            Dialect::Mqs => Ok(false),
        }
    }

    /// The number of available messages; the largest one if the service does not say it.
    async fn waiting(&self) -> Result<u64, Error> {
        if self.sweep.client.dialect() == Dialect::Mqs {
            return Ok(u64::MAX);
        }
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

    /// Acknowledges the first `done` messages of a batch. The rest is redelivered, its first message alone in a batch.
    async fn part(&mut self, batch: &[ReceivedMessage], done: usize, until: Instant) -> Result<(), Error> {
        self.single = done < batch.len();
        if done == 0 {
            self.give_back(batch, until).await;
            return Ok(());
        }
        let taken = batch[..done].iter().map(|message| (message.handle.clone(), AckStatus::Success));
        // Without this line the service would count a failure of the first message that was not taken.
        let rest = batch.get(done).map(|message| (message.handle.clone(), AckStatus::Release));
        let acks: Vec<_> = taken.chain(rest).collect();
        let settled = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await;
        let success = match settled {
            Ok(outcome) => outcome.success.min(done),
            Err(error) if error.is_auth() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, messages = done, "the acknowledgement failed; messages that were already handled may be redelivered");
                self.wait_until(until + 2 * MARGIN);
                0
            }
        };
        self.report.taken += success as u64;
        self.report.doubled += (done - success) as u64;
        Ok(())
    }

    fn hold(&mut self, batch: &[ReceivedMessage], until: Instant, visitor: &mut dyn Visitor) {
        self.single = false;
        for message in batch {
            visitor.passed_over(message);
        }
        self.report.passed_over += batch.len() as u64;
        self.leased.extend(batch.iter().map(|message| (message.handle.clone(), until)));
    }

    /// Gives a batch back, so that it can be consumed again at once, without a failure where the service can do that. If that fails, it is redelivered when its lease
    /// ends.
    async fn give_back(&mut self, batch: &[ReceivedMessage], until: Instant) {
        let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Release)).collect();
        if let Err(error) = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await {
            tracing::debug!(%error, messages = batch.len(), "the messages are redelivered when their lease ends");
            self.wait_until(until + 2 * MARGIN);
        }
    }

    /// Gives back the messages that were passed over.
    async fn release(&mut self) {
        let now = Instant::now();
        let leased: Vec<_> = self.leased.drain(..).filter(|(_, until)| *until > now).collect();
        // Where giving back is a failure, the first failure ends an acknowledgement, and messages behind it that are of other batches would
        // stay leased.
        let together = if self.sweep.client.extensions().release() { MAX_MESSAGES } else { 1 };
        for chunk in leased.chunks(together) {
            let acks: Vec<_> = chunk.iter().map(|(handle, _)| (handle.clone(), AckStatus::Release)).collect();
            let until = chunk.iter().map(|(_, until)| *until).max().unwrap_or(now);
            if let Err(error) = self.sweep.client.acknowledge_until(&self.sweep.source, &acks, until).await {
                tracing::debug!(%error, messages = chunk.len(), "the messages are redelivered when their lease ends");
            }
        }
    }
}
