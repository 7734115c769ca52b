//! The history by subject: each batch with its acknowledgements, each handler's run with its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::history::{Answer, Entry, How, Item, LifeEvent, Line, Process, Says, SendOutcome};

/// The facts of a history, by subject.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) batches: BTreeMap<usize, Batch>,
    pub(super) runs: BTreeMap<usize, Run>,
    pub(super) acks: BTreeMap<usize, Ack>,
    pub(super) sends: Vec<(Vec<u64>, SendOutcome)>,
    /// When the machine slept, and woke up.
    pub(super) sleeps: Vec<(Duration, Duration)>,
    /// When a process first began to end, and how.
    pub(super) ends: BTreeMap<Process, (Duration, LifeEvent)>,
    /// When a process had ended.
    pub(super) gone: BTreeMap<Process, Duration>,
    /// The processes that had the service end polls.
    pub(super) ended_polls: BTreeSet<Process>,
    /// Why a process ended without a signal.
    pub(super) errors: BTreeMap<Process, String>,
}

/// A batch as the server handed it out.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) process: Process,
    pub(super) items: Vec<Item>,
    pub(super) lease: Duration,
    /// When the server handed it out: its lease began.
    pub(super) served: Duration,
    /// When the answer arrived, if it did.
    pub(super) delivered: Option<Duration>,
    /// When its process gave the answer up, if it did.
    pub(super) abandoned: Option<Duration>,
    /// Its acknowledgements in the order of their sending.
    pub(super) acks: Vec<usize>,
    /// When the server settled it, and how many messages of it.
    pub(super) settled: Option<(Duration, usize)>,
    /// The acknowledgement that settled it, and the number of acknowledgements that did.
    pub(super) settled_by: Option<usize>,
    pub(super) settlements: usize,
    /// The positions of settled messages that became dead letters at once.
    pub(super) rejected: BTreeSet<usize>,
}

/// One call of a handler.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) process: Process,
    pub(super) message: u64,
    pub(super) sequence: u64,
    pub(super) begun: Duration,
    pub(super) deadline: Duration,
    pub(super) noticed: Option<Duration>,
    pub(super) ended: Option<(Duration, How)>,
}

/// One acknowledgement as it left a process.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) process: Process,
    pub(super) sent: Duration,
    pub(super) lines: Vec<Line>,
    pub(super) heard: Option<Answer>,
}

impl Batch {
    fn new(process: Process, items: Vec<Item>, lease: Duration, served: Duration) -> Self {
        Self {
            process,
            items,
            lease,
            served,
            delivered: None,
            abandoned: None,
            acks: Vec::new(),
            settled: None,
            settled_by: None,
            settlements: 0,
            rejected: BTreeSet::new(),
        }
    }

    pub(super) fn holds(&self, sequence: u64) -> bool {
        self.items.iter().any(|item| item.sequence == sequence)
    }
}

impl Facts {
    pub(super) fn of(entries: &[(Duration, Entry)]) -> Self {
        let mut facts = Self::default();
        for (at, entry) in entries {
            facts.take(*at, entry);
        }
        facts
    }

    fn take(&mut self, at: Duration, entry: &Entry) {
        match entry.clone() {
            Entry::Sent { messages, outcome } => self.sends.push((messages, outcome)),
            Entry::Served { batch, process, items, lease } => {
                self.batches.insert(batch, Batch::new(process, items, lease, at));
            }
            Entry::Delivered { batch } => self.batch(batch, |batch| batch.delivered = Some(at)),
            Entry::Abandoned { batch } => self.batch(batch, |batch| batch.abandoned = Some(at)),
            Entry::EndsPolls { process } => drop(self.ended_polls.insert(process)),
            Entry::Begun { run, process, message, sequence, deadline } => {
                let (noticed, ended) = (None, None);
                self.runs.insert(run, Run { process, message, sequence, begun: at, deadline, noticed, ended });
            }
            Entry::Noticed { run } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.noticed = Some(at);
                }
            }
            Entry::Ended { run, how } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.ended = Some((at, how));
                }
            }
            Entry::AckSent { ack, process, lines } => {
                if let Some((batch, _)) = lines.iter().find_map(|line| line.place) {
                    self.batch(batch, |batch| batch.acks.push(ack));
                }
                self.acks.insert(ack, Ack { process, sent: at, lines, heard: None });
            }
            Entry::AckJudged { ack, answer: Answer::Settled { success, .. } } => {
                let lines = self.acks.get(&ack).map(|ack| ack.lines.clone()).unwrap_or_default();
                let rejected =
                    lines.iter().filter(|line| line.says == Says::Reject).filter_map(|line| Some(line.place?.1));
                let rejected = rejected.filter(|position| *position < success).collect();
                if let Some((batch, _)) = lines.iter().find_map(|line| line.place) {
                    self.batch(batch, |batch| {
                        (batch.settled, batch.rejected) = (Some((at, success)), rejected);
                        batch.settled_by = Some(ack);
                        batch.settlements += 1;
                    });
                }
            }
            Entry::AckHeard { ack, answer } => {
                if let Some(ack) = self.acks.get_mut(&ack) {
                    ack.heard = Some(answer);
                }
            }
            Entry::Life { process, event: LifeEvent::Ended(error) } => {
                self.ends.entry(process).or_insert((at, LifeEvent::Ended(None)));
                self.gone.insert(process, at);
                if let Some(error) = error {
                    self.errors.insert(process, error);
                }
            }
            Entry::Life { event: LifeEvent::Started, .. } => {}
            Entry::Life { process, event } => drop(self.ends.insert(process, (at, event))),
            Entry::Asleep { length } => self.sleeps.push((at, at + length)),
            Entry::AckJudged { .. } | Entry::ServerDown | Entry::ServerUp | Entry::Calm => {}
            Entry::Lost { .. } | Entry::Held { .. } => {}
        }
    }

    fn batch(&mut self, number: usize, change: impl FnOnce(&mut Batch)) {
        if let Some(batch) = self.batches.get_mut(&number) {
            change(batch);
        }
    }

    /// When a process can act on something that is due: at that time, or when the machine wakes up.
    pub(super) fn awake(&self, due: Duration) -> Duration {
        self.sleeps
            .iter()
            .filter(|(begin, end)| (*begin..*end).contains(&due))
            .map(|(_, end)| *end)
            .max()
            .unwrap_or(due)
    }

    /// Whether the machine slept at some time within an interval.
    pub(super) fn slept_within(&self, stretch: std::ops::RangeInclusive<Duration>) -> bool {
        self.sleeps.iter().any(|(begin, end)| begin <= stretch.end() && end >= stretch.start())
    }

    /// The runs of a process with a message.
    pub(super) fn runs_of(&self, process: Process, sequence: u64) -> impl Iterator<Item = &Run> {
        self.runs.values().filter(move |run| run.process == process && run.sequence == sequence)
    }

    /// The batch that a run's message came with: the last one that had arrived.
    pub(super) fn batch_of(&self, run: &Run) -> Option<(usize, &Batch)> {
        let holds = |batch: &Batch| batch.process == run.process && batch.holds(run.sequence);
        let held = self.batches.iter().filter(|(_, batch)| holds(batch));
        let arrived = held.filter_map(|(number, batch)| batch.delivered.map(|at| (at, *number, batch)));
        let last = arrived.filter(|(at, ..)| *at <= run.begun).max_by_key(|(at, number, _)| (*at, *number));
        last.map(|(_, number, batch)| (number, batch))
    }

    /// Whether a process had succeeded with a message by then.
    pub(super) fn had_succeeded(&self, process: Process, sequence: u64, by: Duration) -> bool {
        self.runs_of(process, sequence).any(|run| matches!(run.ended, Some((at, How::Ok)) if at <= by))
    }

    /// Whether a process had rejected a message by then.
    pub(super) fn had_rejected(&self, process: Process, sequence: u64, by: Duration) -> bool {
        self.runs_of(process, sequence).any(|run| matches!(run.ended, Some((at, How::Rejected)) if at <= by))
    }

    /// Whether a process had begun to end by then.
    pub(super) fn was_ending(&self, process: Process, by: Duration) -> bool {
        self.ends.get(&process).is_some_and(|(at, _)| *at <= by)
    }

    /// Whether a process was silent by then: it was killed, or its future was dropped.
    pub(super) fn was_cut_off(&self, process: Process) -> bool {
        matches!(self.ends.get(&process), Some((_, LifeEvent::Killed | LifeEvent::Dropped)))
    }
}
