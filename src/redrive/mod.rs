//! [`Redrive`]: sends dead letters or parked messages again.
//!
//! This file has the settings. `sweep` consumes the messages, `sender` sends copies of them, and `journal` records the
//! copies in flight.

use std::{collections::HashMap, fmt, path::PathBuf, time::Duration};

use serde_json::Value;

pub(crate) mod copies;
mod journal;
mod sender;
mod sweep;

pub use copies::REDRIVEN;
use journal::{Journal, Legacy};
use sender::{Memory, Sender};
pub use sweep::{Sweep, SweepError, SweepReport, Visitor};

use crate::{
    client::{Client, Error},
    clock,
    limits::LimitError,
    message::{Attributes, Message, ReceivedMessage},
    queue::{QueueId, SourcePath, Stream},
    wire::Dialect,
};

/// The default of [`Redrive::max_redrives`].
const MAX_REDRIVES: u32 = 3;

type Filter = Box<dyn Fn(&ReceivedMessage) -> bool + Send + Sync>;
type Transform = Box<dyn Fn(Message) -> Message + Send + Sync>;

/// Consumes dead letters and sends copies of them. Each dead letter is acknowledged after the service has stored its
/// copy.
///
/// Copies are sent at least once: a copy is sent again if its answer is lost, and a message is redelivered if its
/// acknowledgement is lost or the process dies before it. A redrive that was stopped can be started again and
/// continues; with a [`journal`](Self::journal) it also knows which copies may be duplicates. This project's server
/// tells the position of each message, so that the same run, or the journal, recognises a redelivered message and does
/// not send it twice. The order of the messages is kept.
///
/// ```
/// use std::future::pending;
/// use dms_worker::{HandlerError, Redrive, handler_fn, queue::{NewQueue, SourcePath}, testing::TestServer};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start().await;
///     let orders = server.group(NewQueue::new("orders").dead_letters_after(1), "billing").await;
///     orders.send(["one", "two"]).await;
///     orders.run(handler_fn(|| async { Err(HandlerError::retry("the database is down")) })).await;
///
///     let dead = SourcePath::dead_letters(orders.queue_id().clone(), orders.group_id().clone());
///     let report = Redrive::new(server.client(), dead).run(pending()).await?;
///     assert_eq!(report.redriven, 2);
///     assert_eq!(orders.waiting::<String>().await, ["one", "two"]);
///     Ok(())
/// }
/// ```
pub struct Redrive {
    client: Client,
    sweep: Sweep,
    target: Target,
    filter: Option<Filter>,
    transform: Option<Transform>,
    /// The client that sends; `None` for the client of the source.
    target_client: Option<Client>,
    /// `None` for the default.
    max_redrives: Option<u32>,
    /// The label and the name of an attribute that the last filters of their kind look for.
    wanted_label: Option<String>,
    wanted_attribute: Option<String>,
    unchanged: bool,
    skip_filtered: bool,
    edited_originals: bool,
    dry_run: bool,
    journal: Option<PathBuf>,
}

/// The target of the copies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Queue(QueueId),
    /// The queue from which a parked message came.
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

/// The result of a redrive, or of a dry run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedriveReport {
    /// Messages that were sent again and acknowledged, or in a dry run would have been.
    pub redriven: u64,
    /// Messages that the filter excluded.
    pub filtered: u64,
    /// Messages that were redriven the most times already. Over ROMA Connect MQS, whose messages carry no count: messages that failed
    /// again during the redrive.
    pub exhausted: u64,
    /// Originals of dead letters that were edited and sent again; see [`Redrive::edited_originals`].
    pub edited: u64,
    /// Messages whose copies cannot be sent.
    pub refused: u64,
    /// Copies that may be stored twice, because their answer or the acknowledgement of the original was lost. With a
    /// journal, the runs that this one continues are included.
    pub doubled: u64,
    /// Copies that the runs before this one stored, by the journal.
    pub earlier: u64,
}

impl RedriveReport {
    /// The report of a redrive of a file.
    #[doc(hidden)]
    pub fn of_file(redriven: u64, filtered: u64, exhausted: u64, edited: u64, refused: u64, doubled: u64) -> Self {
        Self { redriven, filtered, exhausted, edited, refused, doubled, earlier: 0 }
    }
}

/// A redrive that ended early.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct RedriveError {
    /// The result until then.
    pub report: RedriveReport,
    /// The error that ended the redrive.
    pub source: Error,
}

impl Redrive {
    /// A redrive of all messages in `source` that were redriven fewer than three times. Dead letters go to the same
    /// queue. Parked messages (a source of [`Stream::Messages`]) go to the queue that their attribute
    /// [`ORIGIN`](crate::worker::attributes::ORIGIN) names, and stay if they have none.
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
            target_client: None,
            max_redrives: None,
            wanted_label: None,
            wanted_attribute: None,
            unchanged: false,
            skip_filtered: false,
            edited_originals: false,
            dry_run: false,
            journal: None,
        }
    }

    /// Sends the copies to this queue; by default to the queue of the source.
    pub fn to(mut self, queue: impl Into<QueueId>) -> Self {
        self.target = Target::Queue(queue.into());
        self
    }

    /// Sends the copies to this queue with another client, for example to another server; by default with the client of the source.
    pub fn to_service(mut self, client: Client, queue: impl Into<QueueId>) -> Self {
        self.target_client = Some(client);
        self.to(queue)
    }

    /// Copies messages as they are, to move them; off by default. Without it a copy loses the history of its failures, and its
    /// redrives are counted and limited.
    pub fn unchanged(mut self, on: bool) -> Self {
        self.unchanged = on;
        self
    }

    /// Acknowledges messages that the filter excludes, without a copy; off by default. This is for a group that was created for
    /// this redrive alone: otherwise these messages are lost to the group.
    pub fn skip_filtered(mut self, on: bool) -> Self {
        self.skip_filtered = on;
        self
    }

    /// Records the copies in flight in this file, which is removed when the redrive has finished; none by default. If
    /// the file belongs to a killed run, this redrive continues that run: it waits for messages that are still leased, does
    /// not send stored copies again, and counts copies that may have been stored as possible duplicates. Missing
    /// directories are created.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Redrives only messages for which `filter` returns true; by default all. Several filters must all do so. The others stay leased
    /// until the end of the redrive, for at most five minutes, and are then given back. Of parked messages,
    /// services other than this project's server count that as a failed consumption.
    pub fn only(mut self, filter: impl Fn(&ReceivedMessage) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(match self.filter.take() {
            Some(before) => Box::new(move |message| before(message) && filter(message)),
            None => Box::new(filter),
        });
        self.sweep(|sweep| sweep.ack_wait(Duration::from_secs(300)))
    }

    /// Redrives only messages with this attribute; by default all. A string also matches a number or boolean with the same text. Over ROMA
    /// Connect MQS, parked messages have the attributes of their history. Together with [`unchanged`](Self::unchanged) that is
    /// refused, because no message has attributes then.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.wanted_attribute = Some(name.clone());
        self.only(move |message| matches(&message.attributes, &name, &value))
    }

    /// Redrives only messages with this label; by default all. Dead letters of the hosted service have no labels. Refused over ROMA Connect MQS,
    /// which has none: choose by the body with [`only`](Self::only).
    pub fn tag(mut self, label: impl Into<String>) -> Self {
        let label = label.into();
        self.wanted_label = Some(label.clone());
        self.only(move |message| message.tags.contains(&label))
    }

    /// Changes each copy before it is sent; by default a copy has the body and the attributes of the message.
    pub fn map(mut self, transform: impl Fn(Message) -> Message + Send + Sync + 'static) -> Self {
        self.transform = Some(Box::new(transform));
        self
    }

    /// The most redrives of one message; 3 by default. Messages beyond it stay, so that none circulates without end. Refused over
    /// ROMA Connect MQS, whose messages carry no count: a message that fails again during the redrive stays there.
    pub fn max_redrives(mut self, times: u32) -> Self {
        self.max_redrives = Some(times);
        self
    }

    /// Also sends originals of dead letters that were edited and sent again; off by default. This project's server keeps such an
    /// original as a dead letter with the reason `edited` beside its copy. Refused over ROMA Connect MQS, which has no dead letters.
    pub fn edited_originals(mut self, on: bool) -> Self {
        self.edited_originals = on;
        self
    }

    /// Sends nothing and counts the messages that would be sent; off by default. The messages are leased meanwhile. Of
    /// a FIFO queue only the first batch is seen.
    pub fn dry_run(mut self, on: bool) -> Self {
        self.dry_run = on;
        self
    }

    /// Changes the settings of the [`Sweep`]: number of messages, rate, leases, progress.
    pub fn sweep(mut self, change: impl FnOnce(Sweep) -> Sweep) -> Self {
        self.sweep = change(self.sweep);
        self
    }

    /// Redrives the messages that exist now, until `shutdown` resolves.
    ///
    /// # Errors
    /// When a setting cannot work over ROMA Connect MQS, the source or the target does not exist, the service refuses the caller
    /// or is unreachable for a minute, or the journal cannot be used. The error has the report until then.
    ///
    /// # Cancel safety
    /// Dropping the future stops the redrive at once. A copy that was just sent may be sent again by the next run, unless there is a journal.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<RedriveReport, RedriveError> {
        let failed = |source| RedriveError { report: RedriveReport::default(), source };
        self.check_dialect().map_err(|error| failed(Error::limit("redrive", error)))?;
        let (journal, legacy) = self.open_journal().map_err(failed)?;
        let report = RedriveReport { earlier: legacy.copied, doubled: legacy.doubled, ..RedriveReport::default() };
        let parked = self.sweep.stream() == Stream::Messages && !self.unchanged;
        let sweep = self.sweep.at_least(legacy.leased_for).parked(parked);
        let mut sender = Sender {
            client: self.target_client.unwrap_or(self.client),
            target: self.target,
            filter: self.filter,
            transform: self.transform,
            max_redrives: self.max_redrives.unwrap_or(MAX_REDRIVES),
            began: clock::now(),
            unchanged: self.unchanged,
            skip_filtered: self.skip_filtered,
            edited_originals: self.edited_originals,
            skipped: 0,
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
        report.redriven += swept.taken.saturating_sub(sender.skipped);
        // A redelivered message that was recognised has a single copy.
        report.doubled += swept.doubled.saturating_sub(sender.memory.recognised());
        if let (Ok(_), Some(journal)) = (&result, sender.journal)
            && let Err(error) = journal.finish()
        {
            tracing::warn!(%error, "the journal of the redrive cannot be removed");
        }
        result.map(|_| report).map_err(|error| RedriveError { report, source: error.source })
    }

    /// Refuses what would have no effect because messages of ROMA Connect MQS are bodies and nothing else.
    fn check_dialect(&self) -> Result<(), LimitError> {
        if self.client.dialect() == Dialect::Dms {
            return Ok(());
        }
        let refuse = |what, value: String, allowed: &str| Err(LimitError { what, value, allowed: allowed.to_owned() });
        if let Some(label) = &self.wanted_label {
            let allowed = "messages of ROMA Connect MQS have no labels: choose by the body with only";
            return refuse("tag", label.clone(), allowed);
        }
        if let Some(name) = self.wanted_attribute.as_ref().filter(|_| self.unchanged) {
            let allowed = "messages of ROMA Connect MQS have no attributes: choose by the body with only";
            return refuse("attribute", name.clone(), allowed);
        }
        if let Some(times) = self.max_redrives {
            let allowed = "messages of ROMA Connect MQS carry no count of redrives: leave it out, and messages that fail again \
                           during the redrive stay parked";
            return refuse("max_redrives", times.to_string(), allowed);
        }
        if self.edited_originals {
            let allowed = "ROMA Connect MQS has no dead letters, whose originals this is about: leave it out";
            return refuse("edited_originals", "true".to_owned(), allowed);
        }
        Ok(())
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

/// Compares values as people write them: `7` equals `"7"`.
fn matches(attributes: &Attributes, name: &str, wanted: &Value) -> bool {
    let (Some(found), value) = (attributes.get(name), attributes.value(name)) else { return false };
    match (value, wanted) {
        (Some(Value::Number(_) | Value::Bool(_)), Value::String(text)) => found.get() == text,
        (value, wanted) => {
            // Equal texts are equal values, even if a number is too large for a parsed value.
            let text = wanted.to_string();
            value.as_ref() == Some(wanted) || found.get() == text
        }
    }
}
