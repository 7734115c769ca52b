//! The invariants that hold in every run, with any faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    facts::{Ack, Batch, Facts, Run},
    history::{Answer, How, Item, Process, Says, SendOutcome},
    run::HandlerOutcome,
    scenario::{Order, WorkerPlan},
};

/// Timers fire at whole milliseconds.
const TICK: Duration = Duration::from_millis(2);
/// The least that a worker keeps of a lease for its acknowledgement.
const MARGIN: Duration = Duration::from_secs(1);
/// How long a worker remembers finished work.
const MEMORY: Duration = Duration::from_secs(360);

/// A rule that was broken, and by which messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) text: String,
    pub(super) messages: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// A message that was not handled is not acknowledged as a success.
    Handled,
    /// A sent message is settled, a dead letter, or still in the queue.
    NothingLost,
    /// A refused message is not in the queue.
    NothingInvented,
    /// An acknowledgement names a prefix of one batch, in order, with the failure last.
    Prefix,
    /// A batch is acknowledged once; only a missing or failed answer is followed by a retry, of the same acknowledgement.
    Once,
    /// A handler is notified, and stopped, in time for the acknowledgement.
    Deadline,
    /// A FIFO queue is handled one by one and settled in order.
    Order,
    /// No more concurrent handlers than configured, and no message waits while its lease runs.
    Room,
    /// Work that was finished is not done again by the same process.
    Memory,
    /// No message becomes a dead letter because of another one's failure.
    NoCollateral,
    /// A message reported as failed has failed, and is counted once: no shutdown, pause or release costs an attempt.
    Blame,
    /// Leased messages are waited for, and acknowledged.
    Waited,
    /// A rejected message is a dead letter at once, and is not run again.
    Rejects,
    /// A service receives no extensions that it does not have.
    Announced,
    /// In the end everything is settled, and every worker stops when asked.
    Quiet,
}

/// Checks a run and returns the violations.
pub(super) fn check(outcome: &HandlerOutcome) -> Vec<Violation> {
    let facts = Facts::of(&outcome.entries);
    let mut checker = Checker { outcome, facts: &facts, found: Vec::new() };
    checker.handled();
    checker.nothing_lost();
    checker.acknowledgements();
    checker.deadlines();
    checker.order();
    checker.room();
    checker.memory();
    checker.blame();
    checker.attempts();
    checker.waited();
    checker.rejects();
    checker.announced();
    checker.collateral();
    checker.quiet();
    checker.prompt();
    checker.found
}

pub(super) struct Checker<'a> {
    pub(super) outcome: &'a HandlerOutcome,
    pub(super) facts: &'a Facts,
    found: Vec<Violation>,
}

impl Checker<'_> {
    pub(super) fn broken(&mut self, rule: Rule, text: impl Into<String>, messages: impl IntoIterator<Item = u64>) {
        self.found.push(Violation { rule, text: text.into(), messages: messages.into_iter().collect() });
    }

    fn handled(&mut self) {
        let facts = self.facts;
        for (number, ack) in &facts.acks {
            for place in ack.lines.iter().filter(|line| line.says == Says::Success).filter_map(|line| line.place) {
                let item = facts.batches[&place.0].items[place.1];
                if !facts.had_succeeded(ack.process, item.sequence, ack.sent) {
                    self.broken(Rule::Handled, format!("ack #{number} says success"), [item.message]);
                }
            }
        }
    }

    fn nothing_lost(&mut self) {
        let facts = self.facts;
        let settled: Vec<u64> = facts
            .batches
            .values()
            .flat_map(|batch| {
                let done = batch.settled.map_or(0, |(_, done)| done);
                batch.items.iter().take(done).zip(0..).filter(|(_, position)| !batch.rejected.contains(position))
            })
            .map(|(item, _)| item.message)
            .collect();
        if settled.len() as u64 != self.outcome.consumed {
            let text = format!("{} messages were settled, the server counts {}", settled.len(), self.outcome.consumed);
            self.broken(Rule::NothingLost, text, []);
        }
        let mut places: BTreeMap<u64, usize> = BTreeMap::new();
        for message in settled.iter().chain(&self.outcome.waiting).chain(&self.outcome.dead) {
            *places.entry(*message).or_default() += 1;
        }
        let sent = |outcome: SendOutcome| {
            facts.sends.iter().filter(move |(_, told)| *told == outcome).flat_map(|(messages, _)| messages.clone())
        };
        for message in sent(SendOutcome::Stored) {
            match places.get(&message) {
                Some(1) => {}
                None => self.broken(Rule::NothingLost, "sent, and nowhere to be found", [message]),
                Some(more) => self.broken(Rule::NothingLost, format!("is in {more} places"), [message]),
            }
        }
        for message in sent(SendOutcome::Refused).filter(|message| places.contains_key(message)) {
            self.broken(Rule::NothingInvented, "surely not sent, and there all the same", [message]);
        }
    }

    fn acknowledgements(&mut self) {
        let facts = self.facts;
        for (number, ack) in &facts.acks {
            let Some(batch) = ack.lines.first().and_then(|line| line.place).map(|(batch, _)| batch) else {
                self.broken(Rule::Prefix, format!("ack #{number} names nothing that was handed out"), []);
                continue;
            };
            let of = &facts.batches[&batch];
            if let Err(text) = is_prefix(ack, batch, of) {
                self.broken(Rule::Prefix, format!("ack #{number}: {text}"), of.items.iter().map(|item| item.message));
            }
        }
        for batch in facts.batches.values() {
            if batch.settlements > 1 {
                self.broken(Rule::Once, "settled twice", batch.items.iter().map(|item| item.message));
            }
            let tries: Vec<&Ack> = batch.acks.iter().map(|ack| &facts.acks[ack]).collect();
            for pair in tries.windows(2) {
                let open = matches!(pair[0].heard, None | Some(Answer::Again));
                if !open || pair[0].lines != pair[1].lines {
                    let text = if open { "another try says something else" } else { "acknowledged again" };
                    self.broken(Rule::Once, text, batch.items.iter().map(|item| item.message));
                }
            }
        }
    }

    fn deadlines(&mut self) {
        for (number, run) in &self.facts.runs {
            let batch = self.facts.batch_of(run).map(|(_, batch)| batch);
            // However long the answer was on its way.
            let latest = batch.map(|batch| batch.served + batch.lease - MARGIN);
            if latest.is_none_or(|latest| run.deadline > latest) {
                let text = format!("run #{number} has a deadline of {:?}, the lease leaves {latest:?}", run.deadline);
                self.broken(Rule::Deadline, text, [run.message]);
            }
            let Some((ended, how)) = run.ended else {
                self.broken(Rule::Deadline, format!("run #{number} never ended"), [run.message]);
                continue;
            };
            if ended > self.facts.awake(run.deadline) + TICK {
                self.broken(Rule::Deadline, format!("run #{number} went on past its deadline"), [run.message]);
            }
            let slept = self.facts.slept_within(run.begun..=ended);
            let timed_out = how == How::Cancelled && ended >= run.deadline && !slept;
            if timed_out && run.noticed.is_none_or(|noticed| noticed >= ended) {
                self.broken(Rule::Deadline, format!("run #{number} was stopped without a word"), [run.message]);
            }
        }
    }

    fn order(&mut self) {
        if !self.outcome.scenario.fifo {
            return;
        }
        let facts = self.facts;
        let settled = facts.batches.values().filter_map(|batch| batch.settled.map(|settled| (settled, batch)));
        let mut settled: Vec<_> = settled.map(|((at, done), batch)| (at, &batch.items[..done])).collect();
        settled.sort_by_key(|(at, _)| *at);
        let items: Vec<_> = settled.into_iter().flat_map(|(_, items)| items).collect();
        for pair in items.windows(2).filter(|pair| pair[0].sequence >= pair[1].sequence) {
            self.broken(Rule::Order, "settled in the wrong order", [pair[0].message, pair[1].message]);
        }
        for run in facts.runs.values() {
            let Some((_, batch)) = facts.batch_of(run) else { continue };
            let before = batch.items.iter().take_while(|item| item.sequence != run.sequence);
            // A rejected message is settled, so later ones need not wait.
            let is_over = |item: &Item| {
                facts.had_succeeded(run.process, item.sequence, run.begun)
                    || (self.outcome.scenario.rejects() && facts.had_rejected(run.process, item.sequence, run.begun))
            };
            let before: Vec<_> = before.filter(|item| !is_over(item)).collect();
            for item in before {
                self.broken(Rule::Order, "handled before an earlier message of its batch", [item.message, run.message]);
            }
        }
    }

    fn room(&mut self) {
        let processes: BTreeSet<Process> = self.facts.runs.values().map(|run| run.process).collect();
        for process in processes {
            let limit = if self.outcome.scenario.fifo { 1 } else { self.concurrency() };
            let runs = self.facts.runs.values().filter(|run| run.process == process);
            // Ends before beginnings where they fall together.
            let mut steps: Vec<(Duration, i32, u64)> = Vec::new();
            for run in runs {
                steps.push((run.begun, 1, run.message));
                steps.extend(run.ended.map(|(at, _)| (at, -1, run.message)));
            }
            steps.sort_unstable();
            let mut running = 0;
            for (at, step, message) in steps {
                running += step;
                if running > limit {
                    self.broken(Rule::Room, format!("process {process} runs {running} handlers at {at:?}"), [message]);
                }
            }
        }
        self.nothing_waits();
    }

    /// The most that any worker may run at a time.
    fn concurrency(&self) -> i32 {
        let most = self.outcome.scenario.workers.iter().map(|worker| worker.concurrency).max();
        most.map_or(0, |most| i32::try_from(most).unwrap())
    }

    /// Received messages start at once, unless they were handled before, or an order or batches are configured.
    fn nothing_waits(&mut self) {
        let waits = |worker: &WorkerPlan| worker.ordering != Order::None || worker.batching.is_some();
        if self.outcome.scenario.fifo || self.outcome.scenario.workers.iter().any(waits) {
            return;
        }
        let facts = self.facts;
        for batch in facts.batches.values() {
            let Some(arrived) = batch.delivered else { continue };
            let begins = |sequence| facts.runs_of(batch.process, sequence).any(|run| run.begun == arrived);
            let was_begun = |sequence| facts.runs_of(batch.process, sequence).any(|run| run.begun < arrived);
            if !batch.items.iter().any(|item| begins(item.sequence)) {
                // The process went away at this moment.
                continue;
            }
            let late = batch.items.iter().filter(|item| !begins(item.sequence) && !was_begun(item.sequence));
            let late: Vec<u64> = late.map(|item| item.message).collect();
            if !late.is_empty() {
                self.broken(Rule::Room, "did not begin when it arrived", late);
            }
        }
    }

    fn memory(&mut self) {
        let mut earlier: BTreeMap<(Process, u64), &Run> = BTreeMap::new();
        for run in self.facts.runs.values() {
            let Some(before) = earlier.insert((run.process, run.sequence), run) else { continue };
            let text = match before.ended {
                Some((ended, _)) if ended > run.begun => "runs it twice at a time",
                Some((ended, How::Ok)) if run.begun - ended < MEMORY => "did it twice",
                Some(_) | None => continue,
            };
            self.broken(Rule::Memory, format!("process {} {text}", run.process), [run.message]);
        }
    }

    fn quiet(&mut self) {
        if !self.outcome.waiting.is_empty() {
            self.broken(Rule::Quiet, "never settled", self.outcome.waiting.clone());
        }
        if !self.outcome.stopped {
            self.broken(Rule::Quiet, "a worker did not stop in time", []);
        }
        for (process, error) in &self.facts.errors {
            self.broken(Rule::Quiet, format!("process {process} gave up: {error}"), []);
        }
    }
}

/// Whether an acknowledgement names a prefix of its batch: messages in order, settled ones first, then at most one failure.
/// If it leaves out messages of the batch, it must end with a failure.
fn is_prefix(ack: &Ack, number: usize, batch: &Batch) -> Result<(), String> {
    for (position, line) in ack.lines.iter().enumerate() {
        if line.place != Some((number, position)) {
            return Err(format!("line {position} is not message {position} of the batch"));
        }
    }
    if ack.process != batch.process {
        return Err("the batch belongs to another process".to_owned());
    }
    match ack.lines.iter().position(|line| !line.says.settles()) {
        Some(failure) if failure + 1 < ack.lines.len() => Err("something follows the failure".to_owned()),
        None if ack.lines.len() < batch.items.len() => Err("it ends early without a failure".to_owned()),
        Some(_) | None => Ok(()),
    }
}
