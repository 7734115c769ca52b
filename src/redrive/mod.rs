//! Sending dead letters, or parked messages, again: [`Redrive`].
//!
//! `sweep` goes through the messages; this file decides which are sent again, sends them, and counts.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, sleep};

mod sweep;

pub use sweep::{Sweep, SweepError, SweepReport, Visitor};

use crate::{
    client::{Client, Error, SendOptions, check_message},
    limits::MAX_BYTES,
    message::{Attributes, Message, ReceivedMessage},
    queue::{QueueId, SourcePath},
    retry::RetryPolicy,
    worker::{ATTEMPTS, ERROR, FIRST_FAILURE, LAST_FAILURE, ORIGIN, REASON, WORKER},
};

/// Attribute of a copy: how often the message was redriven.
pub const REDRIVEN: &str = "dms-redriven";

/// The history that a worker wrote on a message: a copy begins without it.
const HISTORY: [&str; 7] = [ATTEMPTS, ERROR, REASON, WORKER, ORIGIN, FIRST_FAILURE, LAST_FAILURE];
/// How long a copy is tried before the redrive gives up.
const PATIENCE: Duration = Duration::from_secs(30);

type Filter = Box<dyn Fn(&ReceivedMessage) -> bool + Send + Sync>;
type Transform = Box<dyn Fn(Message) -> Message + Send + Sync>;

/// Consumes dead letters and sends them again; each is acknowledged only after the service has its copy.
///
/// At least once: a copy whose answer is lost is sent again, and a message whose copy is stored comes again when its
/// acknowledgement is lost or the process dies before it. Stopping and starting again goes on where it was. The order of
/// the messages is kept.
pub struct Redrive {
    client: Client,
    sweep: Sweep,
    target: QueueId,
    filter: Option<Filter>,
    transform: Option<Transform>,
    max_redrives: u32,
    dry_run: bool,
}

/// What a redrive did, or would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Sent again and gone from where they were. In a dry run: what would have been.
    pub redriven: u64,
    /// Left because the filter did not want them.
    pub filtered: u64,
    /// Left because they were redriven as often as may be.
    pub exhausted: u64,
    /// Left because their copies cannot be sent.
    pub refused: u64,
    /// Copies that may be there twice: their answer, or their original's acknowledgement, was lost.
    pub doubled: u64,
}

/// A redrive that ended early.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct RedriveError {
    /// What was done before.
    pub report: RedriveReport,
    /// Why it ended.
    pub source: Error,
}

impl Redrive {
    /// Sends what is in `source` again: to the same queue, everything, but nothing more than three times.
    pub fn new(client: Client, source: SourcePath) -> Self {
        Self {
            target: source.queue.clone(),
            sweep: Sweep::new(client.clone(), source),
            client,
            filter: None,
            transform: None,
            max_redrives: 3,
            dry_run: false,
        }
    }

    /// Sends the copies to another queue.
    pub fn to(mut self, queue: impl Into<QueueId>) -> Self {
        self.target = queue.into();
        self
    }

    /// Takes only messages for which this holds, besides what was asked before; the others stay. They are leased until the
    /// end of the redrive, for at most five minutes, and given back as failed: for parked messages, not for dead letters, that
    /// counts as a failed consumption.
    pub fn only(mut self, filter: impl Fn(&ReceivedMessage) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter.take() {
            Some(before) => Box::new(move |message| before(message) && filter(message)),
            None => Box::new(filter),
        });
        self.sweep(|sweep| sweep.ack_wait(Duration::from_secs(300)))
    }

    /// Takes only messages with this attribute; a text also matches a number or a flag that is written so.
    pub fn attribute(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.only(move |message| message.attributes.get(&name).is_some_and(|found| matches(found, &value)))
    }

    /// Takes only messages with this label. Dead letters of the hosted service carry none.
    pub fn tag(self, label: impl Into<String>) -> Self {
        let label = label.into();
        self.only(move |message| message.tags.contains(&label))
    }

    /// Changes each copy before it is sent.
    pub fn map(mut self, transform: impl Fn(Message) -> Message + Send + Sync + 'static) -> Self {
        self.transform = Some(Box::new(transform));
        self
    }

    /// Leaves messages that were redriven so often already, so that none goes round for ever; 3 by default.
    pub fn max_redrives(mut self, times: u32) -> Self {
        self.max_redrives = times;
        self
    }

    /// Sends nothing, and counts what would be sent. The messages are leased meanwhile; of a FIFO queue only the first
    /// batch is seen.
    pub fn dry_run(mut self, on: bool) -> Self {
        self.dry_run = on;
        self
    }

    /// Changes how the messages are gone through: how many, how fast, with what progress.
    pub fn sweep(mut self, change: impl FnOnce(Sweep) -> Sweep) -> Self {
        self.sweep = change(self.sweep);
        self
    }

    /// Redrives what is there now, until `shutdown` is ready.
    ///
    /// # Errors
    /// When the source or the target does not exist, the caller is refused, or the service is out of reach for a minute. The
    /// error has the report of what was done before.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<RedriveReport, RedriveError> {
        let mut sender = Sender {
            client: self.client,
            target: self.target,
            filter: self.filter,
            transform: self.transform,
            max_redrives: self.max_redrives,
            dry_run: self.dry_run,
            report: RedriveReport::default(),
        };
        let result = self.sweep.run(&mut sender, shutdown).await;
        let swept = result.as_ref().map_or_else(|error| error.report, |report| *report);
        let mut report = sender.report;
        report.redriven += swept.taken;
        report.doubled += swept.doubled;
        result.map(|_| report).map_err(|error| RedriveError { report, source: error.source })
    }
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive").field("sweep", &self.sweep).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Values as people write them: `7` and `"7"` are the same.
fn matches(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Number(number), Value::String(text)) => number.to_string() == *text,
        (Value::Bool(flag), Value::String(text)) => flag.to_string() == *text,
        _ => found == wanted,
    }
}

/// How often a message was redriven before.
fn redriven(attributes: &Attributes) -> u32 {
    attributes.get(REDRIVEN).and_then(Value::as_u64).map_or(0, |times| u32::try_from(times).unwrap_or(u32::MAX))
}

/// A message as it is sent again: without the history of its failures, and one redrive older.
fn copy(message: &ReceivedMessage) -> Message {
    let times = redriven(&message.attributes).saturating_add(1);
    let mut copy = Message::new(message.body.clone());
    copy.tags.clone_from(&message.tags);
    copy.attributes = message.attributes.clone();
    copy.attributes.retain(|name, _| !HISTORY.contains(&name.as_str()));
    copy.attribute(REDRIVEN, times)
}

/// The visitor that sends copies.
struct Sender {
    client: Client,
    target: QueueId,
    filter: Option<Filter>,
    transform: Option<Transform>,
    max_redrives: u32,
    dry_run: bool,
    report: RedriveReport,
}

impl Sender {
    fn is_filtered(&self, message: &ReceivedMessage) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter(message))
    }

    fn is_exhausted(&self, message: &ReceivedMessage) -> bool {
        redriven(&message.attributes) >= self.max_redrives
    }

    /// The copies that go in one request: up to the first one that cannot be sent, and as many as fit.
    fn copies(&self, messages: &[ReceivedMessage]) -> Vec<Message> {
        let mut bytes = 0;
        let change = |copy| match &self.transform {
            Some(change) => change(copy),
            None => copy,
        };
        let fitting = messages.iter().map(copy).map(change).take_while(|copy| {
            bytes += copy.body.len();
            bytes <= MAX_BYTES && check_message(copy).is_ok()
        });
        fitting.collect()
    }

    /// Sends one request until it is surely stored, and says how many of the first copies are.
    async fn send(&mut self, copies: &[Message]) -> Result<usize, Error> {
        let mut schedule = RetryPolicy::default().max_attempts(None).schedule();
        let give_up = Instant::now() + PATIENCE;
        loop {
            let error = match self.client.send_with(&self.target, copies, SendOptions::default()).await {
                Ok(outcomes) => {
                    let stored = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
                    // Those behind a failed one are stored, and their originals come again with it.
                    self.report.doubled += outcomes[stored..].iter().filter(|outcome| outcome.is_ok()).count() as u64;
                    return Ok(stored);
                }
                Err(error) => error,
            };
            if error.is_unsure() {
                self.report.doubled += copies.len() as u64;
            }
            match schedule.next_delay() {
                Some(pause) if error.is_retryable() && Instant::now() + pause < give_up => sleep(pause).await,
                _ if error.is_limit() => return Ok(0),
                _ => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Visitor for Sender {
    fn wants(&self, message: &ReceivedMessage) -> bool {
        !self.dry_run && !self.is_filtered(message) && !self.is_exhausted(message)
    }

    async fn take(&mut self, messages: &[ReceivedMessage]) -> Result<usize, Error> {
        let copies = self.copies(messages);
        if copies.is_empty() {
            return Ok(0);
        }
        self.send(&copies).await
    }

    fn passed_over(&mut self, message: &ReceivedMessage) {
        let count = match () {
            () if self.is_filtered(message) => &mut self.report.filtered,
            () if self.is_exhausted(message) => &mut self.report.exhausted,
            () if self.dry_run => &mut self.report.redriven,
            () => &mut self.report.refused,
        };
        *count += 1;
    }
}
