//! Running a job.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    broker::{Broker, BrokerError, GroupPath, PeekState, Peeked, Stream},
    dashboard::{
        access::gate::Gate,
        server::{
            jobs::{
                Job, Jobs, Kind, Order, State,
                kept::{self, Kept},
            },
            scan::{Scan, Seen},
        },
    },
    state::AppState,
};

/// The number of dead letters that are read at once, and changed at the same time.
const BATCH: usize = 64;
/// The number of failures of the store in a row after which a job ends.
const MAX_FAILURES: u32 = 10;
/// The pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(2);

/// How one dead letter ended.
enum Outcome {
    Done,
    Skipped,
    Failed(BrokerError),
}

impl Jobs {
    /// Begins a job.
    pub(in crate::dashboard::server) fn begin(
        self: &Arc<Self>,
        app: &Arc<AppState>,
        gate: &Gate,
        order: Order,
    ) -> Arc<Job> {
        self.spawn(app, gate, Job::new(order, false))
    }

    /// Continues the redrives that were in progress when the process ended, and reports the discards that were not done.
    pub(in crate::dashboard::server) fn resume(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate) {
        let kept = app.data_dir.as_deref().map(kept::read).unwrap_or_default();
        for Kept { order, has_begun } in kept {
            match order.kind {
                Kind::Redrive => {
                    tracing::info!(job = order.id, on = order.label, "a redrive goes on after the restart");
                    self.spawn(app, gate, Job::new(order, true));
                }
                Kind::Discard => self.interrupt(gate, order, has_begun),
            }
        }
        self.keep(app.data_dir.as_deref());
    }

    /// Shows a discard of a server that ended. It does not go on: nobody could undo it meanwhile.
    pub(super) fn interrupt(&self, gate: &Gate, order: Order, has_begun: bool) {
        let job = Job::interrupted(order, has_begun);
        tracing::warn!(
            job = job.order.id,
            on = job.order.label,
            has_begun,
            "a discard was not done, because its server ended: what it did not discard is still there; begin it again"
        );
        job.report(gate);
        self.add(&job);
    }

    pub(super) fn spawn(self: &Arc<Self>, app: &Arc<AppState>, gate: &Gate, job: Arc<Job>) -> Arc<Job> {
        self.add(&job);
        self.keep(app.data_dir.as_deref());
        let (jobs, app, gate, running) = (Arc::clone(self), Arc::clone(app), gate.clone(), Arc::clone(&job));
        let is_in_cluster = app.broker.cluster_counters().is_some();
        tokio::spawn(async move {
            if is_in_cluster {
                running.share(&*app.broker).await;
            }
            let run = async {
                if let Some(starts) = running.starts {
                    sleep_until(starts).await;
                    running.set(State::Running);
                    // Before the first change, so that nobody says that nothing was discarded.
                    jobs.keep(app.data_dir.as_deref());
                    while is_in_cluster && !running.share(&*app.broker).await {
                        sleep(PAUSE).await;
                    }
                    if running.has_moved() {
                        return;
                    }
                }
                running.run(&*app.broker).await;
            };
            let stopped = app.stopping.run_until_cancelled(running.cancel.run_until_cancelled(run)).await;
            // A job that the end of the server stops is continued or reported, so its order stays where it is kept.
            if stopped.is_none() {
                return;
            }
            jobs.keep(app.data_dir.as_deref());
            running.unshare(&*app.broker).await;
            running.report(&gate);
        });
        job
    }
}

impl Job {
    async fn run(&self, broker: &dyn Broker) {
        let (path, mut from, mut failures) = (self.order.path(), 0, 0);
        loop {
            let batch = self.next_batch(broker, &path, from).await;
            let failed = match batch {
                Ok((messages, next)) => match self.settle(broker, &path, messages).await {
                    None => {
                        (from, failures) = (next.unwrap_or(0), 0);
                        if next.is_none() {
                            return self.set(State::Done);
                        }
                        continue;
                    }
                    Some(error) => error,
                },
                Err(error) => error,
            };
            failures += 1;
            if failures >= MAX_FAILURES || matches!(failed, BrokerError::QueueNotFound | BrokerError::GroupNotFound) {
                return self.set(State::Failed(failed.to_string()));
            }
            sleep(PAUSE).await;
        }
    }

    /// The next dead letters that the job is for, and where to look after them.
    async fn next_batch(
        &self,
        broker: &dyn Broker,
        path: &GroupPath,
        from: u64,
    ) -> Result<(Vec<Peeked>, Option<u64>), BrokerError> {
        let mut messages = Vec::new();
        let up_to = self.order.up_to;
        let scan = Scan::step(broker, path, Stream::DeadLetters, from, &self.order.filter, |message| {
            if message.sequence > up_to {
                return Seen::Enough;
            }
            if self.order.kind == Kind::Discard || !self.order.filter.spares(&message) {
                messages.push(message);
            }
            if messages.len() < BATCH { Seen::More } else { Seen::Enough }
        });
        let next = scan.await?.next.filter(|next| *next <= up_to);
        Ok((messages, next))
    }

    /// Redrives or discards messages. Returns the first failure of the store.
    async fn settle(&self, broker: &dyn Broker, path: &GroupPath, messages: Vec<Peeked>) -> Option<BrokerError> {
        let rate = self.order.rate;
        let (began, mut count) = (Instant::now(), 0_u32);
        let (mut failed, mut skipped) = (None, 0);
        let at_once = if rate == 0 { BATCH } else { 1 };
        let mut outcomes =
            stream::iter(messages).map(|message| self.settle_one(broker, path, message)).buffered(at_once);
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Outcome::Done => drop(self.done.fetch_add(1, Relaxed)),
                Outcome::Skipped => skipped += 1,
                Outcome::Failed(error) => failed = failed.or(Some(error)),
            }
            count += 1;
            if let Some(pause) = Duration::from_secs(1).checked_div(rate) {
                sleep_until(began + pause.saturating_mul(count)).await;
            }
        }
        // After a failure these messages are looked at again.
        if failed.is_none() {
            self.skipped.fetch_add(skipped, Relaxed);
        }
        failed
    }

    async fn settle_one(&self, broker: &dyn Broker, path: &GroupPath, message: Peeked) -> Outcome {
        if message.state != PeekState::Available {
            return Outcome::Skipped;
        }
        let settled = match self.order.kind {
            Kind::Redrive => broker.retry_dead_letter(path, message.sequence, message.id).await,
            Kind::Discard => broker.discard_message(path, Stream::DeadLetters, message.sequence).await,
        };
        match settled {
            Ok(()) => Outcome::Done,
            // A consumer has leased or settled it since it was read.
            Err(BrokerError::NotAvailable(_)) => Outcome::Skipped,
            Err(error) => Outcome::Failed(error),
        }
    }

    fn report(&self, gate: &Gate) {
        let action = match self.order.kind {
            Kind::Redrive => "redrive",
            Kind::Discard => "discard",
        };
        let target = format!("{} ({})", self.order.label, self.order.filter.describe());
        let counts = format!(
            "{} of {}, {} left with consumers, job {}",
            self.done(),
            self.order.expected,
            self.skipped(),
            self.order.id
        );
        match self.state() {
            State::Failed(error) => gate.record_own(action, &target, Err(&format!("{counts}: {error}"))),
            State::Moved => gate.record_own(action, &target, Ok(&format!("another server goes on after {counts}"))),
            State::Interrupted { has_begun: false } => {
                gate.record_own(
                    action,
                    &target,
                    Err(&format!("not done, because the server ended: nothing was discarded, job {}", self.order.id)),
                );
            }
            State::Interrupted { has_begun: true } => {
                gate.record_own(
                    action,
                    &target,
                    Err(&format!(
                        "not finished, because the server ended: the rest is still there, job {}",
                        self.order.id
                    )),
                );
            }
            State::Cancelled => gate.record_own(action, &target, Ok(&format!("cancelled after {counts}"))),
            _ => gate.record_own(action, &target, Ok(&counts)),
        }
    }
}
