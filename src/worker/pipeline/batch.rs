//! One consumed batch: starts its handlers, watches the lease, acknowledges, and waits for stragglers.

use std::{
    any::Any,
    collections::HashSet,
    convert::Infallible,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    contain::{panic_text, until_panic},
    message::ReceivedMessage,
    text::brief,
    worker::{
        dedup::{in_progress::AfterAck, redelivery::Redelivery},
        dispatch::key_queues::{StopGuard, Ticket},
        handler::delivery::{Deliveries, Delivery, Signals, failed_attempts},
        limit::inflight::{BatchPermits, InflightPermit},
        observe::{event::Event, log::log_message},
        pipeline::{
            ack,
            context::Context,
            process::Job,
            tasks::{BatchTasks, QueuedJob, RunEnd},
        },
        settings::values::OnStuck,
        settlement::{
            lease::Lease,
            ledger::{Ledger, Settlement, Stop, Verdict},
        },
    },
};

/// How long a stopped handler may take to end before the batch is acknowledged without it.
const STRAGGLER_TIMEOUT: Duration = Duration::from_millis(100);

/// A consumed batch: its messages in the order of consumption, a permit for each, and its lease.
#[derive(Debug)]
pub(crate) struct ConsumedBatch {
    pub(crate) messages: Vec<ReceivedMessage>,
    pub(crate) permits: Vec<InflightPermit>,
    pub(crate) lease: Lease,
    /// Whether it was fetched as a single message because it may have failed before.
    pub(crate) suspect: bool,
}

/// Processes a batch. Returns when it is acknowledged and its last handler has ended.
pub(crate) async fn run(context: Arc<Context>, batch: ConsumedBatch) {
    let lease = batch.lease;
    let mut work = BatchRun::begin(context.clone(), batch);
    let settlement = work.until_due(lease).await;
    // Before the acknowledgement is sent: a message that has not started is redelivered, and must not start here as
    // well.
    work.deliveries.signals().settled.cancel();
    work.runs.spawn_waiting();
    work.remember_reasons(settlement);
    let settling = ack::settle(&context, &work.deliveries, &work.ledger, settlement, lease);
    // A panic of the user's transport must not end the task, because handlers still run and hold capacity.
    let settled = work.watched(pin!(until_panic(pin!(settling))), lease).await;
    let gone = settled.unwrap_or_else(|panic| unsettled(&context, panic));
    work.settled(gone, settlement);
    work.reopen_key_queues();
    work.until_ended(lease).await;
}

/// The transport, which may be the user's, has panicked, so the result of the acknowledgement is not known.
fn unsettled(context: &Context, panic: Box<dyn Any + Send>) -> usize {
    let (worker, panic) = (context.settings.name.as_str(), panic_text(panic));
    tracing::error!(worker, panic, "the acknowledgement of a batch panicked, so the batch may be redelivered");
    0
}

/// Hands back a batch that arrived when nothing may be started any more.
pub(crate) async fn hand_back(context: Arc<Context>, batch: ConsumedBatch) {
    let ConsumedBatch { messages, permits: _permits, lease, .. } = batch;
    let mut ledger = Ledger::new(messages.len());
    let deliveries =
        Deliveries::new(messages, context.origin.clone(), Instant::now(), lease.stop_at(), Signals::default());
    deliveries.each_from(0, |position, delivery| {
        context.skipped(delivery);
        ledger.record(position, Verdict::NotStarted);
    });
    ack::settle(&context, &deliveries, &ledger, ledger.prefix(), lease).await;
}

/// A batch in progress.
struct BatchRun {
    context: Arc<Context>,
    ledger: Ledger,
    /// Its messages.
    deliveries: Arc<Deliveries>,
    /// The messages that run, or wait for their key.
    runs: BatchTasks,
    /// The messages that wait for the one before them, the last one first.
    queued: Vec<QueuedJob>,
    /// Guards that reopen the key queues that failures have stopped, by position. Dropped when the message is reported.
    stop_guards: Vec<Option<StopGuard>>,
    /// When each message was started or entered the queue of its key, by position.
    started: Vec<Instant>,
    /// The permits, if stuck handlers must release theirs.
    permits: Option<Arc<BatchPermits>>,
    /// The positions of handlers that continue although they were stopped.
    stuck: HashSet<usize>,
}

impl BatchRun {
    /// Registers the messages and starts those that may run at once.
    fn begin(context: Arc<Context>, batch: ConsumedBatch) -> Self {
        let signals = Signals::new(context.control.stopping.clone(), context.control.interrupt.child_token());
        let mut stop_guards = Vec::new();
        let frees_permits = context.settings.on_stuck == OnStuck::FreePermit;
        let permits = batch.permits.first().filter(|_| frees_permits).map(|permit| permit.batch().clone());
        let ordering = &context.settings.ordering;
        let collector = context.dispatch.collector(batch.messages.len());
        // In an ordered batch, a separate call would break the order.
        let own_call = |message: &ReceivedMessage| {
            !ordering.is_batch() && (batch.suspect || failed_attempts(&message.attributes) > 0)
        };
        let mut jobs: Vec<QueuedJob> = Vec::with_capacity(batch.messages.len());
        let (now, deadline) = (Instant::now(), batch.lease.stop_at());
        let deliveries = Deliveries::new(batch.messages, context.origin.clone(), now, deadline, signals);
        for (position, permit) in batch.permits.into_iter().enumerate() {
            let delivery = deliveries.at(position);
            let own_call = own_call(delivery.message());
            context.explain(&delivery);
            let ticket = ordering.key(&delivery).map(|key| enter(&context, key, &mut stop_guards));
            let slot = collector.as_ref().map(|collector| collector.slot(position));
            jobs.push(QueuedJob { job: Job { delivery, ticket, slot, own_call }, permit });
        }
        let mut work = Self {
            runs: BatchTasks::new(context.clone()),
            context,
            ledger: Ledger::new(jobs.len()),
            deliveries,
            queued: Vec::new(),
            stop_guards,
            started: Vec::with_capacity(jobs.len()),
            permits,
            stuck: HashSet::new(),
        };
        // Held until the batch has ended, because a redelivery that arrives meanwhile has to find the run here, or its success.
        work.context.records.runs.hold(work.context.records.dedup_identities(work.deliveries.messages()));
        // A batch handler takes the messages of an ordered batch in one call.
        if work.context.settings.ordering.is_batch() && collector.is_none() {
            // Taken from the end, which costs nothing however long the batch is.
            jobs.reverse();
            work.queued = jobs;
        } else {
            work.start(jobs);
        }
        work
    }

    fn start(&mut self, jobs: Vec<QueuedJob>) {
        self.started.resize(self.started.len() + jobs.len(), Instant::now());
        self.runs.begin(jobs);
    }

    /// Runs until an acknowledgement is due: when the prefix is decided, the lease is about to expire, or the grace
    /// period is over.
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
                    self.record(&ended);
                    // All at once, because quick handlers end together, and the acknowledgement is due after the last
                    // one.
                    while let Some(ended) = self.runs.ended() {
                        self.record(&ended);
                    }
                }
                () = sleep_until(lease.notice_at()), if !cancelled.is_cancelled() => cancelled.cancel(),
                () = sleep_until(lease.stop_at()), if cancelled.is_cancelled() => return self.stop_all().await,
                () = self.context.control.interrupt.cancelled() => return self.stop_all().await,
            }
        }
    }

    /// Starts the next message of an ordered batch, or skips the rest after a failure.
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

    /// Stops the running handlers, and takes the results that they still return.
    async fn stop_all(&mut self) -> Settlement {
        self.deliveries.signals().cancelled.cancel();
        self.deliveries.signals().stop.cancel();
        self.runs.spawn_waiting();
        for QueuedJob { job, .. } in std::mem::take(&mut self.queued) {
            self.skip(&job.delivery);
        }
        let stragglers_until = Instant::now() + STRAGGLER_TIMEOUT;
        while let Ok(Some(ended)) = timeout_at(stragglers_until, self.runs.next()).await {
            self.record(&ended);
        }
        self.report_stuck();
        let settlement = self.ledger.prefix();
        // A handler that continues although its worker was stopped has not failed.
        match self.ledger.verdict(settlement.done) {
            None if self.context.control.interrupt.is_cancelled() => Settlement { stop: Stop::Release, ..settlement },
            _ => settlement,
        }
    }

    fn skip(&mut self, delivery: &Delivery) {
        self.context.skipped(delivery);
        self.ledger.record(delivery.position(), Verdict::NotStarted);
    }

    /// Reports handlers that continue although they were stopped.
    fn report_stuck(&mut self) {
        for (position, started) in self.started.iter().enumerate() {
            if self.ledger.verdict(position).is_some() || !self.stuck.insert(position) {
                continue;
            }
            let (age, policy) = (started.elapsed(), self.context.settings.on_stuck);
            let delivery = self.deliveries.at(position);
            log_message!(
                error,
                delivery,
                age = %brief(age),
                capacity = match policy {
                    OnStuck::KeepPermit => "kept",
                    OnStuck::FreePermit => "freed",
                },
                "a handler continues after it was stopped, because it blocks its thread"
            );
            self.context.control.stuck.fetch_add(1, Relaxed);
            self.context.emit(&Event::Stuck { delivery: &delivery, age });
            if let Some(permits) = &self.permits {
                permits.free(position);
            }
        }
    }

    /// Records the end of a run.
    fn record(&mut self, ended: &RunEnd) {
        self.ledger.record(ended.position, ended.verdict);
    }

    /// Enforces the deadline on running handlers while the acknowledgement is in progress, which may wait for polls or
    /// be retried.
    async fn watched<T>(&self, settling: Pin<&mut impl Future<Output = T>>, lease: Lease) -> T {
        let lease_end = pin!(self.enforce_deadline(lease));
        tokio::select! {
            biased;
            settled = settling => settled,
            never = lease_end => match never {},
        }
    }

    /// Signals the handlers shortly before their deadline, and stops them at the deadline. Never resolves.
    fn enforce_deadline(&self, lease: Lease) -> impl Future<Output = Infallible> + use<> {
        let deliveries = self.deliveries.clone();
        async move {
            sleep_until(lease.notice_at()).await;
            deliveries.signals().cancelled.cancel();
            sleep_until(lease.stop_at()).await;
            deliveries.signals().stop.cancel();
            std::future::pending().await
        }
    }

    /// Records why the messages after the prefix will be redelivered, where their runs have not recorded it.
    fn remember_reasons(&self, settlement: Settlement) {
        let (done, released) = (settlement.done, settlement.released() > 0);
        self.deliveries.each_from(done, |position, delivery| match self.ledger.verdict(position) {
            Some(Verdict::Failed) => {}
            None if position == done => {
                self.context.remember_reason(delivery, Redelivery::TimedOut);
                // A handler that a shutdown stops has not failed.
                if !self.context.control.interrupt.is_cancelled() {
                    self.context.failure.attempts.stuck(delivery.message());
                }
            }
            Some(Verdict::NotStarted) if position == done || released => {}
            _ if released => self.context.remember_reason(delivery, Redelivery::HandedBack),
            _ => self.context.remember_reason(delivery, Redelivery::BehindFailure),
        });
    }

    /// Records which messages are settled for good. The others are redelivered. A redelivered message that is done or
    /// still running is not run again, except in an ordered batch after the first message that is not done.
    fn settled(&self, gone: usize, settlement: Settlement) {
        let in_order = self.context.settings.ordering.is_batch();
        let next = |position| match position {
            _ if position < gone => AfterAck::Gone,
            _ if position <= settlement.done || !in_order => AfterAck::Redelivered,
            _ => AfterAck::RunAgain,
        };
        let messages = self.deliveries.messages().iter().enumerate();
        self.context.records.runs.settled(
            self.deliveries.number(),
            messages.filter_map(|(position, message)| {
                Some((self.context.records.dedup_identity(message)?, next(position)))
            }),
        );
    }

    /// Reopens the key queues that failures have stopped, because these failures are reported now.
    fn reopen_key_queues(&mut self) {
        for (position, stop_guard) in self.stop_guards.iter_mut().enumerate() {
            if self.ledger.verdict(position).is_some() {
                *stop_guard = None;
            }
        }
    }

    /// Waits for handlers that still run behind a failure, or that do not stop.
    async fn until_ended(&mut self, lease: Lease) {
        let stuck_at = lease.stop_at().max(Instant::now()) + STRAGGLER_TIMEOUT;
        let mut reported = false;
        let lease_end = self.enforce_deadline(lease);
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

    /// Records the end of a run whose message was reported as failed before.
    fn ended_late(&mut self, ended: &RunEnd) {
        let position = ended.position;
        self.ledger.record(position, ended.verdict);
        if self.stuck.remove(&position) {
            self.context.control.stuck.fetch_sub(1, Relaxed);
            let delivery = self.deliveries.at(position);
            log_message!(warn, delivery, "a stuck handler has ended");
        }
        if let Some(stop_guard) = self.stop_guards.get_mut(position) {
            *stop_guard = None;
        }
    }
}

impl Drop for BatchRun {
    fn drop(&mut self) {
        self.context.records.runs.release(self.context.records.dedup_identities(self.deliveries.messages()));
        self.context.control.stuck.fetch_sub(self.stuck.len(), Relaxed);
    }
}

fn enter(context: &Context, key: String, stop_guards: &mut Vec<Option<StopGuard>>) -> Ticket {
    let (ticket, stop_guard) = context.dispatch.keyed_queues.enter(key);
    stop_guards.push(Some(stop_guard));
    ticket
}
