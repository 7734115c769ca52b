//! The life of one consumed batch: start its handlers, watch the lease, acknowledge, wait for the stragglers.

use std::{
    any::Any,
    collections::HashSet,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    contain::panic_text,
    message::ReceivedMessage,
    worker::{
        dedup::{in_progress::Next, redelivery::Redelivery},
        dispatch::key_queues::{Place, Tenure},
        handler::delivery::{Deliveries, Delivery, Signals, failed_attempts},
        limit::inflight::{Permit, Places},
        observe::event::Event,
        pipeline::{
            ack,
            context::Shared,
            process::Job,
            tasks::{Ended, Placed, Runs},
        },
        settings::values::OnStuck,
        settlement::{
            lease::Lease,
            ledger::{Ledger, Settlement, Stop, Verdict},
        },
    },
};

/// How long a stopped handler may take to let go before the batch is acknowledged without it.
const LET_GO: Duration = Duration::from_millis(100);

/// A consumed batch: its messages in the order of consumption, a permit for each, and its lease.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<ReceivedMessage>,
    pub(crate) permits: Vec<Permit>,
    pub(crate) lease: Lease,
    /// Its message may be the one that failed: it was fetched by itself.
    pub(crate) suspect: bool,
}

/// Works a batch off: returns when it is acknowledged and its last handler has ended.
pub(crate) async fn run(shared: Arc<Shared>, batch: Batch) {
    let lease = batch.lease;
    let mut work = Work::begin(shared.clone(), batch);
    let settlement = work.until_due(lease).await;
    work.deliveries.signals().settled.cancel();
    work.runs.spread();
    work.expect_again(settlement);
    let settling = ack::settle(&shared, &work.deliveries, &work.ledger, settlement, lease);
    let settled = work.watched(AssertUnwindSafe(settling).catch_unwind(), lease).await;
    let gone = settled.unwrap_or_else(|panic| unsettled(&shared, panic));
    work.settled(gone, settlement);
    work.reopen_lanes();
    work.until_ended(lease).await;
}

/// A transport of the user's panicked, so nobody knows what became of the acknowledgement.
fn unsettled(shared: &Shared, panic: Box<dyn Any + Send>) -> usize {
    let (worker, panic) = (shared.settings.name.as_str(), panic_text(panic));
    tracing::error!(worker, panic, "the acknowledgement of a batch panicked: it may be redelivered");
    0
}

/// Hands a batch back that came when nothing was to be begun any more.
pub(crate) async fn hand_back(shared: Arc<Shared>, batch: Batch) {
    let Batch { messages, permits: _places, lease, .. } = batch;
    let mut ledger = Ledger::new(messages.len());
    let deliveries =
        Deliveries::new(messages, shared.origin.clone(), Instant::now(), lease.stop_at(), Signals::default());
    deliveries.each_from(0, |position, delivery| {
        shared.skipped(delivery);
        ledger.record(position, Verdict::NotStarted);
    });
    ack::settle(&shared, &deliveries, &ledger, ledger.prefix(), lease).await;
}

/// The handlers of a batch.
struct Work {
    shared: Arc<Shared>,
    ledger: Ledger,
    /// Its messages.
    deliveries: Arc<Deliveries>,
    /// Those that run, or wait for their lane.
    runs: Runs,
    /// Those that wait for the one before them, last first.
    queued: Vec<Placed>,
    /// What opens the lanes again that failures stopped: by position, where there are lanes, until the message is reported.
    tenures: Vec<Option<Tenure>>,
    /// By position, those that were begun or entered their lane.
    started: Vec<Instant>,
    /// Where places are to be freed of handlers that are stuck.
    places: Option<Arc<Places>>,
    /// Handlers that go on although they were stopped.
    stuck: HashSet<usize>,
}

impl Work {
    fn begin(shared: Arc<Shared>, batch: Batch) -> Self {
        let signals = Signals::new(shared.control.stopping.clone(), shared.control.interrupt.child_token());
        let mut tenures = Vec::new();
        let frees_places = shared.settings.on_stuck == OnStuck::FreePlace;
        let places = batch.permits.first().filter(|_| frees_places).map(|permit| permit.places().clone());
        let ordering = &shared.settings.ordering;
        let gathering = shared.gathering(batch.messages.len());
        // In an ordered batch, a call of its own would be out of turn.
        let alone = |message: &ReceivedMessage| {
            !ordering.is_batch() && (batch.suspect || failed_attempts(&message.attributes) > 0)
        };
        let mut jobs: Vec<Placed> = Vec::with_capacity(batch.messages.len());
        let (now, deadline) = (Instant::now(), batch.lease.stop_at());
        let deliveries = Deliveries::new(batch.messages, shared.origin.clone(), now, deadline, signals);
        for (position, permit) in batch.permits.into_iter().enumerate() {
            let delivery = deliveries.at(position);
            let alone = alone(delivery.message());
            shared.explain(&delivery);
            let place = ordering.key(&delivery).map(|key| enter(&shared, key, &mut tenures));
            let seat = gathering.as_ref().map(|gathering| gathering.seat(position));
            jobs.push(Placed { job: Job { delivery, place, seat, alone }, permit });
        }
        let mut work = Self {
            runs: Runs::new(shared.clone()),
            shared,
            ledger: Ledger::new(jobs.len()),
            deliveries,
            queued: Vec::new(),
            tenures,
            started: Vec::with_capacity(jobs.len()),
            places,
            stuck: HashSet::new(),
        };
        work.shared.known_runs.hold(work.shared.identities(work.deliveries.messages()));
        // Handled together, the messages of an ordered batch are one call.
        if work.shared.settings.ordering.is_batch() && gathering.is_none() {
            jobs.reverse();
            work.queued = jobs;
        } else {
            work.start(jobs);
        }
        work
    }

    fn start(&mut self, jobs: Vec<Placed>) {
        self.started.resize(self.started.len() + jobs.len(), Instant::now());
        self.runs.begin(jobs);
    }

    /// Runs until an acknowledgement is due: the prefix is decided, the lease is about to end, or the grace period is over.
    async fn until_due(&mut self, lease: Lease) -> Settlement {
        loop {
            self.start_next();
            if let Some(due) = self.ledger.due() {
                return due;
            }
            let cancelled = &self.deliveries.signals().cancelled;
            tokio::select! {
                biased;
                Some(ended) = self.runs.next() => {
                    self.note(&ended);
                    while let Some(ended) = self.runs.ended() {
                        self.note(&ended);
                    }
                }
                () = sleep_until(lease.notice_at()), if !cancelled.is_cancelled() => cancelled.cancel(),
                () = sleep_until(lease.stop_at()), if cancelled.is_cancelled() => return self.stop_all().await,
                () = self.shared.control.interrupt.cancelled() => return self.stop_all().await,
            }
        }
    }

    /// Starts the next message of an ordered batch, or turns the rest away after a failure.
    fn start_next(&mut self) {
        while self.runs.is_empty() {
            let Some(next) = self.queued.pop() else { return };
            if self.ledger.has_failure() {
                self.skip(&next.job.delivery);
            } else {
                self.start(vec![next]);
            }
        }
    }

    /// Stops what runs, and takes what is finished by then.
    async fn stop_all(&mut self) -> Settlement {
        self.deliveries.signals().cancelled.cancel();
        self.deliveries.signals().stop.cancel();
        self.runs.spread();
        for Placed { job, .. } in std::mem::take(&mut self.queued) {
            self.skip(&job.delivery);
        }
        let let_go = Instant::now() + LET_GO;
        while let Ok(Some(ended)) = timeout_at(let_go, self.runs.next()).await {
            self.note(&ended);
        }
        self.report_stuck();
        let settlement = self.ledger.prefix();
        // A handler that goes on although its worker was stopped has not failed.
        match self.ledger.verdict(settlement.done) {
            None if self.shared.control.interrupt.is_cancelled() => Settlement { stop: Stop::Release, ..settlement },
            _ => settlement,
        }
    }

    fn skip(&mut self, delivery: &Delivery) {
        self.shared.skipped(delivery);
        self.ledger.record(delivery.position(), Verdict::NotStarted);
    }

    /// Tells of the handlers that do not end although they were stopped.
    fn report_stuck(&mut self) {
        let worker = self.shared.settings.name.as_str();
        for (position, started) in self.started.iter().enumerate() {
            if self.ledger.verdict(position).is_some() || !self.stuck.insert(position) {
                continue;
            }
            let (age, policy) = (started.elapsed(), self.shared.settings.on_stuck);
            tracing::error!(worker, ?age, ?policy, "a handler goes on although it was stopped: it blocks its thread");
            self.shared.control.stuck.fetch_add(1, Relaxed);
            self.shared.tell(&Event::Stuck { delivery: &self.deliveries.at(position), age });
            if let Some(places) = &self.places {
                places.free(position);
            }
        }
    }

    /// Takes in the end of a run.
    fn note(&mut self, ended: &Ended) {
        self.ledger.record(ended.position, ended.verdict);
    }

    /// Sees to the handlers that still run while the acknowledgement is under way: it may wait for polls, or be tried again.
    async fn watched<T>(&self, settling: impl Future<Output = T>, lease: Lease) -> T {
        let lease_end = self.enforce(lease);
        tokio::pin!(settling, lease_end);
        tokio::select! {
            biased;
            settled = settling => settled,
            never = lease_end => match never {},
        }
    }

    /// Tells the handlers when their time is nearly over, and stops them when it is. Never resolves: the caller waits for more.
    fn enforce(&self, lease: Lease) -> impl Future<Output = Infallible> + use<> {
        let deliveries = self.deliveries.clone();
        async move {
            sleep_until(lease.notice_at()).await;
            deliveries.signals().cancelled.cancel();
            sleep_until(lease.stop_at()).await;
            deliveries.signals().stop.cancel();
            std::future::pending().await
        }
    }

    /// Notes why the messages behind the prefix come again, where their runs have not said so.
    fn expect_again(&self, settlement: Settlement) {
        let (done, released) = (settlement.done, settlement.released() > 0);
        self.deliveries.each_from(done, |position, delivery| match self.ledger.verdict(position) {
            Some(Verdict::Failed) => {}
            None if position == done => self.shared.expect(delivery, Redelivery::TimedOut),
            Some(Verdict::NotStarted) if position == done || released => {}
            _ if released => self.shared.expect(delivery, Redelivery::HandedBack),
            _ => self.shared.expect(delivery, Redelivery::BehindFailure),
        });
    }

    /// The first messages are gone, the others are redelivered: what of them is done, or still running, need not be run again. Unless
    /// it has to be handled in order: then the turn of what is behind the first that is not done is after that.
    fn settled(&self, gone: usize, settlement: Settlement) {
        let in_order = self.shared.settings.ordering.is_batch();
        let next = |position| match position {
            _ if position < gone => Next::Gone,
            _ if position <= settlement.done || !in_order => Next::Redelivered,
            _ => Next::RunAgain,
        };
        let messages = self.deliveries.messages().iter().enumerate();
        self.shared.known_runs.settled(
            self.deliveries.number(),
            messages.filter_map(|(position, message)| Some((self.shared.identity(message)?, next(position)))),
        );
    }

    /// The failures of this batch are reported: their lanes go on.
    fn reopen_lanes(&mut self) {
        for (position, tenure) in self.tenures.iter_mut().enumerate() {
            if self.ledger.verdict(position).is_some() {
                *tenure = None;
            }
        }
    }

    /// Waits for handlers that are still running behind a failure, or that would not stop.
    async fn until_ended(&mut self, lease: Lease) {
        let stuck_at = lease.stop_at().max(Instant::now()) + LET_GO;
        let mut reported = false;
        let lease_end = self.enforce(lease);
        tokio::pin!(lease_end);
        loop {
            tokio::select! {
                biased;
                ended = self.runs.next() => match ended {
                    Some(ended) => self.ended_late(&ended),
                    None => return,
                },
                never = &mut lease_end => match never {},
                () = sleep_until(stuck_at), if !reported => {
                    reported = true;
                    self.report_stuck();
                }
            }
        }
    }

    /// Takes in the end of a run whose message was reported as failed before.
    fn ended_late(&mut self, ended: &Ended) {
        let position = ended.position;
        self.ledger.record(position, ended.verdict);
        if self.stuck.remove(&position) {
            self.shared.control.stuck.fetch_sub(1, Relaxed);
            tracing::warn!(worker = self.shared.settings.name, "a handler that was stuck has ended");
        }
        if let Some(tenure) = self.tenures.get_mut(position) {
            *tenure = None;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.known_runs.let_go(self.shared.identities(self.deliveries.messages()));
        self.shared.control.stuck.fetch_sub(self.stuck.len(), Relaxed);
    }
}

fn enter(shared: &Shared, key: String, tenures: &mut Vec<Option<Tenure>>) -> Place {
    let (place, tenure) = shared.lanes.enter(key);
    tenures.push(Some(tenure));
    place
}
