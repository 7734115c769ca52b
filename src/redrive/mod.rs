//! Sending dead letters, or parked messages, again: [`Redrive`].
//!
//! `sweep` goes through the messages, `sender` sends copies of them, `journal` remembers which are on their way; this file is
//! the settings.

use std::{collections::HashMap, fmt, path::PathBuf, time::Duration};

use serde_json::Value;

mod copies;
mod journal;
mod sender;
mod sweep;

pub use copies::REDRIVEN;
pub use copies::{is_exhausted, older};
use journal::{Journal, Legacy};
use sender::{Memory, Sender};
pub use sweep::{Sweep, SweepError, SweepReport, Visitor};

use crate::{
    client::{Client, Error},
    message::{Attributes, Message, ReceivedMessage},
    queue::{QueueId, SourcePath, Stream},
};

type Filter = Box<dyn Fn(&ReceivedMessage) -> bool + Send + Sync>;
type Transform = Box<dyn Fn(Message) -> Message + Send + Sync>;

/// Consumes dead letters and sends them again; each is acknowledged only after the service has its copy.
///
/// At least once: a copy whose answer is lost is sent again, and a message whose copy is stored comes again when its
/// acknowledgement is lost or the process dies before it. Stopping and starting again goes on where it was; with a
/// [`journal`](Self::journal) also the count of copies that may be there twice does. Where messages can be told apart (this
/// project's server says their place), one that comes again is recognised by its journal or by the same run, and not sent
/// again. The order of the messages is kept.
pub struct Redrive {
    client: Client,
    sweep: Sweep,
    target: Target,
    filter: Option<Filter>,
    transform: Option<Transform>,
    max_redrives: u32,
    dry_run: bool,
    journal: Option<PathBuf>,
}

/// Where copies go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Queue(QueueId),
    /// The queue that a parked message came from.
    Origin,
}

impl Target {
    fn queue(&self) -> Option<&QueueId> {
        match self {
            Self::Queue(queue) => Some(queue),
            Self::Origin => None,
        }
    }
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
    /// Copies that may be there twice: their answer, or their original's acknowledgement, was lost. With a journal, those of
    /// the runs that this one continues are counted, too.
    pub doubled: u64,
    /// Copies stored by the runs that this one continues, as its journal says.
    pub earlier: u64,
}

impl RedriveReport {
    /// The report on a file of messages.
    #[doc(hidden)]
    pub fn of_file(redriven: u64, filtered: u64, exhausted: u64, refused: u64, doubled: u64) -> Self {
        Self { redriven, filtered, exhausted, refused, doubled, earlier: 0 }
    }
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
    /// Sends what is in `source` again: everything, but nothing more than three times. Dead letters go to the same queue,
    /// parked messages (a source of [`Stream::Messages`]) to the queues that they came from, as their attribute
    /// [`ORIGIN`](crate::worker::attributes::ORIGIN) says; without one they stay.
    pub fn new(client: Client, source: SourcePath) -> Self {
        Self {
            target: match source.stream {
                Stream::DeadLetters => Target::Queue(source.queue.clone()),
                Stream::Messages => Target::Origin,
            },
            sweep: Sweep::new(client.clone(), source),
            client,
            filter: None,
            transform: None,
            max_redrives: 3,
            dry_run: false,
            journal: None,
        }
    }

    /// Sends the copies to this queue.
    pub fn to(mut self, queue: impl Into<QueueId>) -> Self {
        self.target = Target::Queue(queue.into());
        self
    }

    /// Keeps a journal in this file; none by default. It has the copies that are on their way, and goes when the redrive comes
    /// to its end. If there is one of a run that was killed, that run is continued: what it had leased is waited for, what it
    /// had stored is not sent again, and what it may have stored counts as doubled. Its directory is made if need be.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
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
        self.only(move |message| matches(&message.attributes, &name, &value))
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
    /// When the source or the target does not exist, the caller is refused, the service is out of reach for a minute, or the
    /// journal cannot be used. The error has the report of what was done before.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<RedriveReport, RedriveError> {
        let failed = |source| RedriveError { report: RedriveReport::default(), source };
        let (journal, legacy) = self.open_journal().map_err(failed)?;
        let report = RedriveReport { earlier: legacy.copied, doubled: legacy.doubled, ..RedriveReport::default() };
        let sweep = self.sweep.at_least(legacy.leased_for);
        let mut sender = Sender {
            client: self.client,
            target: self.target,
            filter: self.filter,
            transform: self.transform,
            max_redrives: self.max_redrives,
            dry_run: self.dry_run,
            report,
            journal,
            lease: sweep.lease(),
            memory: Memory::new(&legacy),
            origins: HashMap::new(),
        };
        let result = sweep.run(&mut sender, shutdown).await;
        let swept = result.as_ref().map_or_else(|error| error.report, |report| *report);
        let mut report = sender.report;
        report.redriven += swept.taken;
        // What came again and was recognised has one copy.
        report.doubled += swept.doubled.saturating_sub(sender.memory.recognised());
        if let (Ok(_), Some(journal)) = (&result, sender.journal)
            && let Err(error) = journal.finish()
        {
            tracing::warn!(%error, "the journal of the redrive cannot be removed");
        }
        result.map(|_| report).map_err(|error| RedriveError { report, source: error.source })
    }

    fn open_journal(&self) -> Result<(Option<Journal>, Legacy), Error> {
        let Some(path) = self.journal.as_ref().filter(|_| !self.dry_run) else {
            return Ok((None, Legacy::default()));
        };
        let target = self.target.queue().map_or("the queues they came from", QueueId::as_str);
        let task = format!("{} to {target}", self.sweep.source());
        let (journal, legacy) = Journal::open(path, &task).map_err(|error| sender::journal_error(&error))?;
        Ok((Some(journal), legacy))
    }
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive").field("sweep", &self.sweep).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Values as people write them: `7` and `"7"` are the same.
fn matches(attributes: &Attributes, name: &str, wanted: &Value) -> bool {
    let (Some(found), value) = (attributes.get(name), attributes.value(name)) else { return false };
    match (value, wanted) {
        (Some(Value::Number(_) | Value::Bool(_)), Value::String(text)) => found.get() == text,
        (value, wanted) => {
            // The same text is the same value, also where a number does not fit into one.
            let text = wanted.to_string();
            value.as_ref() == Some(wanted) || found.get() == text
        }
    }
}
