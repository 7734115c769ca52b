//! Checks which handlers and messages caused failures and dead letters.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dms_server::broker::embedded::FailureCounting;

use super::{
    facts::{Batch, Run},
    history::{How, LifeEvent, Process, Says},
    invariants::{Checker, Rule},
    scenario::{Order, Weather},
};

/// The time of a shutdown beyond the grace period for the remaining polls.
const CUT_SHORT: Duration = Duration::from_secs(3);

/// No poll takes longer.
const LONGEST_POLL: Duration = Duration::from_secs(60);

impl Checker<'_> {
    /// A message that is reported as failed has failed: with releases there is no other reason to report it.
    pub(super) fn blame(&mut self) {
        if !self.outcome.scenario.extensions {
            return;
        }
        let facts = self.facts;
        for (number, ack) in &facts.acks {
            for (batch, position) in
                ack.lines.iter().filter(|line| line.says == Says::Fail).filter_map(|line| line.place)
            {
                let item = facts.batches[&batch].items[position];
                let runs = facts.runs_of(ack.process, item.sequence);
                if !runs.filter(|run| run.begun <= ack.sent).any(|run| self.fails(run, ack.sent)) {
                    self.broken(Rule::Blame, format!("ack #{number} says fail, and no run has failed"), [item.message]);
                }
            }
        }
    }

    /// Whether a run had failed by then: its handler answered so, or its time was over.
    fn fails(&self, run: &Run, by: Duration) -> bool {
        match run.ended {
            Some((at, How::Ok)) if at <= by => false,
            Some((at, How::Cancelled)) if at <= by => {
                self.call_failed(run, at) || self.is_out_of_time(run, at) || !self.facts.was_ending(run.process, at)
            }
            Some((at, _)) if at <= by => true,
            // It goes on although its time is over.
            _ => by >= run.deadline || self.is_out_of_time(run, by),
        }
    }

    /// Whether a call that ended then has failed for all its messages: by the timeout of one of them, or by a panic.
    fn call_failed(&self, run: &Run, at: Duration) -> bool {
        let shared = |other: &&Run| other.process == run.process && other.begun == run.begun;
        let ended = self.facts.runs.values().filter(shared).filter_map(|other| Some((other, other.ended?)));
        let mut ended = ended.filter(|(_, (other, _))| *other == at);
        ended.any(|(other, (_, how))| at >= other.deadline || how == How::Panicked)
    }

    /// Whether the handler's timeout was over. Of several workers it is not known which a process belongs to.
    fn is_out_of_time(&self, run: &Run, by: Duration) -> bool {
        self.outcome
            .scenario
            .workers
            .iter()
            .filter_map(|worker| worker.timeout)
            .any(|timeout| by >= run.begun + timeout)
    }

    /// The server counts reported failures, and ended leases.
    pub(super) fn attempts(&mut self) {
        let facts = self.facts;
        for (number, batch) in &facts.batches {
            for item in &batch.items {
                let before =
                    facts.batches.range(..number).map(|(_, batch)| batch).filter(|batch| batch.holds(item.sequence));
                let failures = before.filter(|before| self.may_have_cost(before, item.sequence)).count();
                if item.attempt as usize > 1 + failures {
                    let text = format!("attempt {} after {failures} failures and lapsed leases", item.attempt);
                    self.broken(Rule::Blame, text, [item.message]);
                }
            }
        }
    }

    /// Whether a batch may have cost a message an attempt: it was not settled, or a failure was reported of it, or before it.
    fn may_have_cost(&self, batch: &Batch, sequence: u64) -> bool {
        let Some(ack) = batch.settled_by else { return true };
        let lines = &self.facts.acks[&ack].lines;
        let Some(failure) = lines.iter().position(|line| line.says == Says::Fail) else { return false };
        let position = batch.items.iter().position(|item| item.sequence == sequence);
        match self.outcome.scenario.counting {
            FailureCounting::Culprit => position == Some(failure),
            FailureCounting::Batch => position >= Some(failure),
        }
    }

    /// Messages leased to a live process are waited for, and acknowledged.
    pub(super) fn waited(&mut self) {
        let facts = self.facts;
        for (number, batch) in &facts.batches {
            // A machine that sleeps lets leases lapse, and answers come too late.
            let about = batch.served.saturating_sub(LONGEST_POLL)..=batch.served + batch.lease;
            if facts.was_cut_off(batch.process) || facts.slept_within(about) {
                continue;
            }
            if let Some(abandoned) = batch.abandoned.filter(|at| !self.may_give_up(batch.process, *at)) {
                let text = format!("batch #{number} was not waited for at {abandoned:?}");
                self.broken(Rule::Waited, text, batch.items.iter().map(|item| item.message));
            }
            if batch.delivered.is_some() && batch.acks.is_empty() {
                let text = format!("batch #{number} was never acknowledged");
                self.broken(Rule::Waited, text, batch.items.iter().map(|item| item.message));
            }
        }
    }

    /// Whether a process may give its polls up: its grace period is over, and they could not be ended.
    fn may_give_up(&self, process: Process, at: Duration) -> bool {
        let scenario = &self.outcome.scenario;
        let Some((stopping, how)) = self.facts.ends.get(&process) else { return false };
        // Of several workers it is not known which a process belongs to.
        let grace = scenario.workers.iter().map(|worker| worker.grace).min().unwrap_or_default();
        let grace = if *how == LifeEvent::StoppingNow { Duration::ZERO } else { grace };
        let can_end = scenario.extensions;
        at >= *stopping + grace && !(can_end && self.is_fine())
    }

    /// Whether shutdowns of workers are the only events in this world.
    fn is_fine(&self) -> bool {
        let scenario = &self.outcome.scenario;
        let Weather { latency, .. } = scenario.weather;
        scenario.weather == Weather { latency, slowness: scenario.weather.slowness, ..Weather::default() }
            && scenario.restarts.is_empty()
            && scenario.sleeps.is_empty()
    }

    /// A rejected message is a dead letter at once, and is not run again.
    pub(super) fn rejects(&mut self) {
        let facts = self.facts;
        for (number, ack) in facts.acks.iter().filter(|_| self.outcome.scenario.rejects()) {
            let failed = ack.lines.iter().filter(|line| line.says == Says::Fail).filter_map(|line| line.place);
            for item in failed.map(|(batch, position)| facts.batches[&batch].items[position]) {
                let last = facts.runs_of(ack.process, item.sequence).filter(|run| run.begun <= ack.sent).last();
                if last.is_some_and(|run| matches!(run.ended, Some((at, How::Rejected)) if at <= ack.sent)) {
                    self.broken(Rule::Rejects, format!("ack #{number} says that it failed"), [item.message]);
                }
            }
        }
        for batch in facts.batches.values() {
            let Some((settled, _)) = batch.settled else { continue };
            for item in batch.rejected.iter().map(|position| batch.items[*position]) {
                let again = facts.runs.values().any(|run| run.sequence == item.sequence && run.begun > settled);
                if again || !self.outcome.dead.contains(&item.message) {
                    let text = if again {
                        "was run again after it was rejected"
                    } else {
                        "was rejected, and is no dead letter"
                    };
                    self.broken(Rule::Rejects, text, [item.message]);
                }
            }
        }
    }

    /// A service that announces no extensions is not asked for any.
    pub(super) fn announced(&mut self) {
        if self.outcome.scenario.extensions {
            return;
        }
        for process in self.facts.ended_polls.clone() {
            self.broken(Rule::Announced, format!("process {process} asked the service to end polls"), []);
        }
        for (number, ack) in &self.facts.acks {
            if ack.lines.iter().any(|line| matches!(line.says, Says::Release | Says::Reject)) {
                self.broken(Rule::Announced, format!("ack #{number} uses an extension"), []);
            }
        }
    }

    /// No message becomes a dead letter without its own failures, except by ended leases, each counted once.
    pub(super) fn collateral(&mut self) {
        let Some(count) = self.outcome.scenario.max_consume_count else { return };
        let dead: BTreeSet<u64> = self.outcome.dead.iter().copied().collect();
        let unlucky = self.spent_innocently();
        for message in dead.difference(&self.guilty()) {
            let spent = unlucky.get(message).copied().unwrap_or_default() + self.hits();
            if spent < usize::try_from(count).unwrap() {
                self.broken(Rule::NoCollateral, "became a dead letter although its handler never failed", [*message]);
            }
        }
    }

    /// The messages with a failed run.
    fn guilty(&self) -> BTreeSet<u64> {
        let failed = self.facts.runs.values().filter(|run| self.fails(run, Duration::MAX));
        failed.map(|run| run.message).collect()
    }

    /// How often failures of others may hit a message: once for each process if the service counts them, and if a key queue turned it
    /// away, which counts under either rule.
    fn hits(&self) -> usize {
        let scenario = &self.outcome.scenario;
        let lanes = scenario.workers.iter().any(|worker| worker.ordering == Order::Key);
        match lanes || scenario.counting == FailureCounting::Batch {
            true => scenario.processes() + usize::from(lanes),
            false => 0,
        }
    }

    /// How many attempts each message lost without a failure: to ended leases whose acknowledgement never arrived, and to a
    /// service that knows no releases.
    fn spent_innocently(&self) -> BTreeMap<u64, usize> {
        let mut spent = BTreeMap::new();
        for batch in self.facts.batches.values() {
            let lines = batch.settled_by.map(|ack| &self.facts.acks[&ack].lines);
            let failure = lines.and_then(|lines| lines.iter().position(|line| line.says == Says::Fail));
            for (position, item) in batch.items.iter().enumerate() {
                let handed_back = !self.outcome.scenario.extensions && failure == Some(position);
                if lines.is_none() || handed_back {
                    *spent.entry(item.message).or_default() += 1;
                }
            }
        }
        spent
    }

    /// In a world where nothing goes wrong a worker that is asked to stop needs no longer than its handlers.
    pub(super) fn prompt(&mut self) {
        if !self.outcome.scenario.extensions || !self.is_fine() {
            return;
        }
        let facts = self.facts;
        for (process, gone) in &facts.gone {
            let Some((stopping, _)) = facts.ends.get(process) else { continue };
            let runs = facts.runs.values().filter(|run| run.process == *process);
            let last = runs.filter_map(|run| run.ended).map(|(at, _)| at).max().unwrap_or_default();
            let due = last.max(*stopping) + CUT_SHORT;
            if *gone > due {
                self.broken(
                    Rule::Quiet,
                    format!("process {process} stopped only at {gone:?}, and could at {due:?}"),
                    [],
                );
            }
        }
    }
}
