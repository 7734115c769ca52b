//! The events of a run, in order and with times: recorded by the network and the handlers, read by the checker and by people.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::scenario::HoldKind;

/// One process of a worker; each life is another one.
pub(super) type Process = usize;

/// The history of a run.
#[derive(Debug)]
pub(super) struct History {
    started: Instant,
    entries: Mutex<Vec<(Duration, Entry)>>,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A producer sent these messages.
    Sent { messages: Vec<u64>, outcome: SendOutcome },
    /// A process begins, ends, or begins to end.
    Life { process: Process, event: LifeEvent },
    /// The server leased a batch to a process, for as long as was asked.
    Served { batch: usize, process: Process, items: Vec<Item>, lease: Duration },
    /// The answer with the batch arrived.
    Delivered { batch: usize },
    /// The network lost the answer with the batch.
    Lost { batch: usize },
    /// The process did not wait for the answer with the batch.
    Abandoned { batch: usize },
    /// A process has the service end polls.
    EndsPolls { process: Process },
    /// A process fetches nothing, or fetches again.
    Held { process: Process, how: HoldKind, on: bool },
    /// A handler begins.
    Begun { run: usize, process: Process, message: u64, sequence: u64, deadline: Duration },
    /// The handler is notified that it will be stopped.
    Noticed { run: usize },
    /// The handler ended.
    Ended { run: usize, how: How },
    /// An acknowledgement leaves a process.
    AckSent { ack: usize, process: Process, lines: Vec<Line> },
    /// The server's answer to it.
    AckJudged { ack: usize, answer: Answer },
    /// The answer that the process received.
    AckHeard { ack: usize, answer: Answer },
    /// The server restarts: it is away, and its leases are gone.
    ServerDown,
    /// It is back.
    ServerUp,
    /// The machine sleeps for this time: clocks continue, and no process runs.
    Asleep { length: Duration },
    /// From now on nothing goes wrong.
    Calm,
}

/// The answer to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendOutcome {
    Stored,
    Unsure,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LifeEvent {
    Started,
    Stopping,
    /// Without a grace period.
    StoppingNow,
    Killed,
    Dropped,
    /// `run` returned: the text of its error if there was one.
    Ended(Option<String>),
}

/// A message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) message: u64,
    pub(super) sequence: u64,
    pub(super) attempt: u32,
}

/// How a handler's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ok,
    Failed,
    /// It is never to be handled again.
    Rejected,
    Panicked,
    /// Its future was dropped.
    Cancelled,
}

/// One line of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Which message of which batch; `None` for a receipt that was never issued.
    pub(super) place: Option<(usize, usize)>,
    pub(super) says: Says,
}

/// The verdict of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Success,
    /// It becomes a dead letter at once: it is settled, and later messages may be too.
    Reject,
    Fail,
    /// It is handed back, and no failure is counted.
    Release,
}

impl Says {
    pub(super) fn of(status: &str) -> Self {
        match status {
            "success" => Self::Success,
            "reject" => Self::Reject,
            "release" => Self::Release,
            _ => Self::Fail,
        }
    }

    /// Whether the acknowledgement continues after it.
    pub(super) fn settles(self) -> bool {
        matches!(self, Self::Success | Self::Reject)
    }
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Settled {
        success: usize,
        fail: usize,
    },
    /// Refused for good, with this status.
    Refused(u16),
    /// It did not work this time: an outage, an error of the service, throttling, no answer.
    Again,
}

impl History {
    /// An empty history that begins now.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), entries: Mutex::default() }
    }

    /// Notes what happens now.
    pub(super) fn note(&self, entry: Entry) {
        self.add(|_| entry);
    }

    /// Notes what happens now; `entry` is given a number that is its own.
    pub(super) fn add(&self, entry: impl FnOnce(usize) -> Entry) -> usize {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entries.len();
        let entry = entry(number);
        entries.push((self.started.elapsed(), entry));
        number
    }

    /// A moment as time since the beginning.
    pub(super) fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.started)
    }

    /// All of it.
    pub(super) fn entries(&self) -> Vec<(Duration, Entry)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Entry {
    /// The messages it is about, given the earlier facts; `None` for facts about all.
    pub(super) fn messages(&self, entries: &[(Duration, Self)]) -> Option<Vec<u64>> {
        let of = |number: usize| entries.get(number).and_then(|(_, entry)| entry.messages(entries));
        match self {
            Self::Sent { messages, .. } => Some(messages.clone()),
            Self::Served { items, .. } => Some(items.iter().map(|item| item.message).collect()),
            Self::Begun { message, .. } => Some(vec![*message]),
            Self::Delivered { batch: number }
            | Self::Lost { batch: number }
            | Self::Abandoned { batch: number }
            | Self::Noticed { run: number }
            | Self::Ended { run: number, .. }
            | Self::AckJudged { ack: number, .. }
            | Self::AckHeard { ack: number, .. } => of(*number),
            Self::AckSent { lines, .. } => {
                lines.iter().find_map(|line| line.place).and_then(|(batch, _)| of(batch)).or(Some(Vec::new()))
            }
            Self::EndsPolls { .. } | Self::Held { .. } => None,
            Self::Life { .. } | Self::ServerDown | Self::ServerUp | Self::Asleep { .. } | Self::Calm => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { messages, outcome } => write!(f, "send {messages:?}: {outcome:?}"),
            Self::Life { process, event } => write!(f, "process {process}: {event:?}"),
            Self::Served { batch, process, items, lease } => {
                write!(f, "batch #{batch} leased to process {process} for {lease:?}:")?;
                items.iter().try_for_each(|Item { message, sequence, attempt }| {
                    write!(f, " {message} (place {sequence}, attempt {attempt})")
                })
            }
            Self::Delivered { batch } => write!(f, "batch #{batch} arrived"),
            Self::Lost { batch } => write!(f, "batch #{batch} was lost on its way"),
            Self::Abandoned { batch } => write!(f, "batch #{batch} was not waited for"),
            Self::EndsPolls { process } => write!(f, "process {process} ends polls"),
            Self::Held { process, how, on } => {
                write!(f, "process {process}: {how:?} {}", if *on { "on" } else { "off" })
            }
            Self::Begun { run, process, message, deadline, .. } => {
                write!(f, "run #{run}: process {process} begins message {message}, deadline {deadline:?}")
            }
            Self::Noticed { run } => write!(f, "run #{run} is asked to stop"),
            Self::Ended { run, how } => write!(f, "run #{run}: {how:?}"),
            Self::AckSent { ack, process, lines } => {
                write!(f, "ack #{ack} of process {process}:")?;
                lines.iter().try_for_each(|Line { place, says }| {
                    let word = format!("{says:?}").to_lowercase();
                    match place {
                        Some((batch, position)) => write!(f, " #{batch}[{position}] {word}"),
                        None => write!(f, " ? {word}"),
                    }
                })
            }
            Self::AckJudged { ack, answer } => write!(f, "ack #{ack} judged by the server: {answer:?}"),
            Self::AckHeard { ack, answer } => write!(f, "ack #{ack} answered: {answer:?}"),
            Self::ServerDown => f.write_str("the server goes down; its leases are gone"),
            Self::ServerUp => f.write_str("the server is up"),
            Self::Asleep { length } => write!(f, "everybody sleeps for {length:?}"),
            Self::Calm => f.write_str("from now on nothing goes wrong"),
        }
    }
}
