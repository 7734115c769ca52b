//! [`WorkerReport`]: the counts with which [`Worker::run`](crate::worker::Worker::run) ends.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::worker::{
    handler::{delivery::Origin, outcome::HandlerOutcome},
    observe::event::{AckResult, Event, MessageAck, Observer},
};

/// The counts of one run of a worker. "Messages" are deliveries: a message that is delivered twice counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct WorkerReport {
    /// Messages that were consumed.
    pub received: u64,
    /// Messages whose handler succeeded.
    pub done: u64,
    /// Messages whose handler returned an error that is neither a reject nor a deferral.
    pub failed: u64,
    /// Messages whose handler rejected them, including undecodable messages.
    pub rejected: u64,
    /// Messages whose handler deferred them.
    pub deferred: u64,
    /// Messages whose handler panicked.
    pub panicked: u64,
    /// Messages whose handler was stopped at its deadline.
    pub timed_out: u64,
    /// Messages whose handler was stopped at the end of the grace period.
    pub interrupted: u64,
    /// Messages that were not passed to the handler, because a message before them failed or too little time was left.
    pub skipped: u64,
    /// Messages that were redelivered after their handler had succeeded, and were acknowledged without calling it.
    pub remembered: u64,
    /// Messages that the service settled.
    pub acknowledged: u64,
    /// Messages that will be redelivered, because they or an earlier message of their batch failed.
    pub redelivered: u64,
    /// Messages that were handed back without counting a failure, because they were not started or their handler was
    /// stopped with the worker.
    pub released: u64,
    /// Messages that were rejected and became dead letters at once.
    pub dead_lettered: u64,
    /// Batches whose acknowledgement arrived too late.
    pub late: u64,
    /// Batches whose acknowledgement got no reply.
    pub unknown: u64,
    /// Batches whose acknowledgement was refused.
    pub refused: u64,
    /// Polls that failed.
    pub failed_polls: u64,
    /// Handlers that continued after they were stopped.
    pub stuck: u64,
    /// Messages that were in flight when the worker stopped waiting for them. They will be redelivered.
    pub left: u64,
    /// Polls that were not answered within the grace period. Messages that were leased to them will be redelivered when
    /// their lease expires, and count as failed.
    pub polls_given_up: u64,
    /// Whether everything that had started was finished within the grace period.
    pub drained: bool,
}

impl AddAssign for WorkerReport {
    /// Adds the counts of another run, for example of a worker that was replaced. The sum is drained if both are.
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.done += other.done;
        self.failed += other.failed;
        self.rejected += other.rejected;
        self.deferred += other.deferred;
        self.panicked += other.panicked;
        self.timed_out += other.timed_out;
        self.interrupted += other.interrupted;
        self.skipped += other.skipped;
        self.remembered += other.remembered;
        self.acknowledged += other.acknowledged;
        self.redelivered += other.redelivered;
        self.released += other.released;
        self.dead_lettered += other.dead_lettered;
        self.late += other.late;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.failed_polls += other.failed_polls;
        self.stuck += other.stuck;
        self.left += other.left;
        self.polls_given_up += other.polls_given_up;
        self.drained &= other.drained;
    }
}

/// Counts events.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    deferred: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    interrupted: AtomicU64,
    skipped: AtomicU64,
    remembered: AtomicU64,
    acknowledged: AtomicU64,
    redelivered: AtomicU64,
    released: AtomicU64,
    dead_lettered: AtomicU64,
    late: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    failed_polls: AtomicU64,
    stuck: AtomicU64,
    polls_given_up: AtomicU64,
}

impl Counters {
    /// The counts so far.
    pub(crate) fn report(&self, drained: bool) -> WorkerReport {
        let read = |count: &AtomicU64| count.load(Relaxed);
        WorkerReport {
            received: read(&self.received),
            done: read(&self.done),
            failed: read(&self.failed),
            rejected: read(&self.rejected),
            deferred: read(&self.deferred),
            panicked: read(&self.panicked),
            timed_out: read(&self.timed_out),
            interrupted: read(&self.interrupted),
            skipped: read(&self.skipped),
            remembered: read(&self.remembered),
            acknowledged: read(&self.acknowledged),
            redelivered: read(&self.redelivered),
            released: read(&self.released),
            dead_lettered: read(&self.dead_lettered),
            late: read(&self.late),
            unknown: read(&self.unknown),
            refused: read(&self.refused),
            failed_polls: read(&self.failed_polls),
            stuck: read(&self.stuck),
            left: 0,
            polls_given_up: read(&self.polls_given_up),
            drained,
        }
    }

    /// Counts polls that are given up.
    pub(crate) fn gave_up(&self, polls: usize) {
        add(&self.polls_given_up, polls);
    }

    fn handled(&self, outcome: HandlerOutcome<'_>) -> &AtomicU64 {
        match (outcome, outcome.name()) {
            (HandlerOutcome::Done, _) => &self.done,
            (HandlerOutcome::Panicked(_), _) => &self.panicked,
            (HandlerOutcome::TimedOut, _) => &self.timed_out,
            (HandlerOutcome::Interrupted, _) => &self.interrupted,
            (HandlerOutcome::Failed(_), "rejected") => &self.rejected,
            (HandlerOutcome::Failed(_), "deferred") => &self.deferred,
            (HandlerOutcome::Failed(_), "timed_out") => &self.timed_out,
            (HandlerOutcome::Failed(_), _) => &self.failed,
        }
    }

    /// Counts an acknowledgement of `all` messages, `released` of which were handed back.
    fn settled(&self, result: AckResult<'_>, all: usize, released: usize) {
        match result {
            AckResult::Answered { success, fail } => {
                add(&self.acknowledged, success);
                add(&self.released, released);
                add(&self.redelivered, fail.saturating_sub(released));
                return;
            }
            AckResult::Late => add(&self.late, 1),
            AckResult::Unknown => add(&self.unknown, 1),
            AckResult::Refused(_) => add(&self.refused, 1),
        }
        add(&self.redelivered, all);
    }
}

impl Observer for Counters {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        match *event {
            Event::Received { messages, .. } => add(&self.received, messages),
            Event::PollFailed { .. } => add(&self.failed_polls, 1),
            Event::Acknowledged { result: MessageAck::DeadLettered, .. } => add(&self.dead_lettered, 1),
            Event::Started { .. } | Event::Redelivered { .. } | Event::Acknowledged { .. } => {}
            Event::Handled { outcome, .. } => add(self.handled(outcome), 1),
            Event::Skipped { .. } => add(&self.skipped, 1),
            Event::Remembered { .. } => add(&self.remembered, 1),
            Event::Stuck { .. } => add(&self.stuck, 1),
            Event::Settled { result, done, rest, released } => self.settled(result, done + rest, released),
        }
    }
}

fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Relaxed);
}
