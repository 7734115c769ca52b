//! The worker runtime: implement a [`Handler`], and it consumes a queue.
//!
//! # How it flows
//!
//! `poller` takes room from the `gate`, polls the `source`, and hands what came to a `batch` with its `lease`. The batch `run`s
//! its messages, each through the [`Handler`] and the `failure` policy (`call` calls it, for one message or for the
//! several that met in a `gathering`), writes their verdicts into its `ledger`, and when that
//! says so the `acker` sends the batch's one acknowledgement. `isolation` keeps a failure from hurting its neighbours, `pace` and
//! `batch_size` say how many polls go out and for how much, `lanes` keep an order where one was asked for. `known_runs` see to it that
//! a message is run once at a time, and the `explainer` says why one came again.
//!
//! # What holds
//!
//! * A message whose handler did not succeed is never acknowledged as a success.
//! * There is exactly one acknowledgement per consumed batch, in the order of consumption, up to the first message that is
//!   not done: when the batch is complete, at its first failure once all before it are done, or when its time is over.
//! * Nothing is fetched that cannot start at once.
//! * A handler is stopped early enough for the acknowledgement of what is finished to arrive. Leases cannot be extended.
//! * A panic, a body that cannot be decoded, and a handler that hangs stay with their message.
//!
//! Delivery is at least once: a message can come again after its handler succeeded (a lost acknowledgement, a failure in
//! front of it in its batch), so handlers should be idempotent.

mod builder;
mod control;
mod dedup;
mod delivery_builder;
mod dispatch;
mod failure;
mod fetch;
mod handler;
mod isolation;
mod limit;
mod look_up;
mod metrics;
mod observe;
mod pipeline;
mod settings;
mod settlement;
#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinSet;

#[doc(hidden)]
pub use self::dedup::memory::Memory;
pub use self::{
    builder::WorkerBuilder,
    control::{Status, WorkerHandle},
    dedup::redelivery::Redelivery,
    delivery_builder::DeliveryBuilder,
    failure::{
        DEFERRED, ERROR, FIRST_FAILURE, LAST_FAILURE, ORIGIN, OnFailure, OnReject, OnUndecodable, REASON, Republish,
        WORKER,
    },
    fetch::rate_limit::Rate,
    handler::{
        Handler, HandlerFn, TypedHandlerFn,
        batch::{BatchHandler, BatchHandlerFn, Batching, Collect, batch_handler_fn},
        delivery::{ATTEMPTS, Delivery, Origin},
        error::{FailureKind, HandlerError},
        handler_fn,
        service::{DeliveryService, HandlerFuture, HandlerService, ServiceHandler},
        typed_handler_fn,
    },
    limit::{fair_share::Sharing, inflight::Brake},
    metrics::WorkerMetrics,
    observe::{
        event::{AckResult, Event, HandlerOutcome, MessageAck, Observer},
        latency::Quantiles,
        report::WorkerReport,
    },
    settings::{AckWait, InvalidSettings, KeyFn, MaxMessages, OnStuck, Ordering},
};
use self::{
    control::Control,
    failure::FailurePolicy,
    fetch::source::{Service, Source},
    handler::kind::HandlerKind,
    look_up::{Search, Session, Targets},
    observe::event::Observers,
    pipeline::{context::Shared, poller},
    settings::{Settings, warnings::Ground},
};
pub(crate) use self::{fetch::rate_limit::RateLimit as Bucket, limit::shared::Ceiling};
pub use crate::spans::{MESSAGING_SYSTEM, SPANS};
use crate::{
    client::{Client, Error},
    queue::{Queue, QueueMode},
};

/// Consumes one queue for one group. Workers are stateless: any number of them can share a group.
///
/// ```no_run
/// use dms_worker::{Client, Worker, worker::handler_fn};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let handler = handler_fn(|delivery| async move { Ok(println!("{:?}", delivery.body())) });
/// let report = Worker::builder(client).queue("orders").group("billing").handler(handler)
///     .concurrency(64)
///     .build()?
///     .run(async { drop(tokio::signal::ctrl_c().await) })
///     .await?;
/// println!("{} messages handled", report.done);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    client: Client,
    queue: String,
    group: String,
    handler: HandlerKind,
    settings: Settings,
    observers: Observers,
    control: Arc<Control>,
    /// It waits for what is missing from the start on, and puts up with every refusal but that of the key.
    persistent: bool,
}

impl Worker {
    fn new(
        client: Client,
        queue: String,
        group: String,
        handler: HandlerKind,
        settings: Settings,
        mut observers: Observers,
    ) -> Self {
        let control = Control::new(queue.clone(), group.clone(), &settings);
        observers.add(control.tally.clone());
        Self { client, queue, group, handler, settings, observers, control, persistent: false }
    }

    /// Settings that will work but are likely not meant, each with the remedy. [`WorkerBuilder::build`] logs them, and the start of
    /// the worker logs those that depend on the queue. Before the start, [`check`](Self::check) finds those out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.settings.warnings();
        warnings.extend(self.control.warnings());
        warnings
    }

    /// Looks up the queue and the group, and everything else that the settings name. Afterwards [`warnings`](Self::warnings) also says
    /// what depends on them: where rejected messages go, for example.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when the service cannot be reached.
    pub async fn check(&self) -> Result<(), WorkerError> {
        let targets = self.look_up().await?;
        self.check_ground(&targets.queue)
    }

    /// Whether the settings can work with the queue; notes what is likely not meant.
    fn check_ground(&self, queue: &Queue) -> Result<(), WorkerError> {
        let ground = Ground {
            queue: &queue.name,
            dead_letters: queue.dead_letters.or(queue.mode.is_kafka().then_some(false)),
            max_consume_count: queue.max_consume_count,
            extensions: self.client.extensions(),
        };
        self.settings.check_ground(ground)?;
        self.control.set_warnings(self.settings.warnings_on(ground));
        Ok(())
    }

    /// A handle that steers the worker while it runs.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle(self.control.clone())
    }

    /// Takes its places from a ceiling that others share.
    pub(crate) fn join(&self, ceiling: &Arc<Ceiling>) {
        self.control.gate.join(ceiling.join(self.settings.weight));
    }

    /// How long handlers may go on after the shutdown signal.
    pub(crate) fn grace(&self) -> Duration {
        self.settings.grace
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.settings.grace = grace;
    }

    /// From now on it waits for a queue or group that does not exist, and tries again after a refusal.
    pub(crate) fn persist(&mut self) {
        self.persistent = true;
    }

    /// Consumes until `shutdown` resolves or [`WorkerHandle::stop`] is called, then drains: the polls in flight are ended and their
    /// answers waited for, running handlers finish within the grace period and their lease, what is left is stopped, and every
    /// acknowledgement that is due is sent. What did not start is handed back, without a failure counted where the service can do
    /// that. A service that cannot end polls is waited for, within the grace period.
    ///
    /// While the service cannot be reached it waits and tries again, from the first call on. A queue or group that is deleted while
    /// the worker runs is looked up again by its name until it is there; [`WorkerHandle::failure`] says so meanwhile.
    ///
    /// Dropping the future stops everything at once: what is in flight comes again when its lease lapses.
    ///
    /// # Errors
    /// When the queue or the group does not exist, the credentials are refused, or the queue's mode contradicts the settings.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        let control = self.control.clone();
        let _stop_all = control.interrupt.clone().drop_guard();
        let stop = async {
            tokio::select! {
                () = shutdown => {}
                () = control.stopping.cancelled() => {}
            }
        };
        tokio::pin!(stop);
        let mut search = Search::default();
        let mut sessions: Vec<Session> = Vec::new();
        let (ended, pollers) = loop {
            tokio::select! {
                biased;
                () = &mut stop => break (Ok(()), JoinSet::new()),
                found = self.find(&mut search, &mut sessions) => match found {
                    Ok(()) => {}
                    Err(error) => break (Err(error), JoinSet::new()),
                },
            }
            let Some(session) = sessions.last() else { break (Ok(()), JoinSet::new()) };
            let supervised = poller::supervise(&session.shared);
            tokio::pin!(supervised);
            let (polls, mut pollers) = tokio::select! {
                biased;
                () = &mut stop => {
                    control.stopping.cancel();
                    // Not dropped: what the last polls bring has to be known before the batches are waited for.
                    let (polls, pollers) = supervised.await;
                    break (polls.map_err(WorkerError::from), pollers);
                }
                ended = supervised.as_mut() => ended,
            };
            match polls {
                Ok(()) => break (Ok(()), pollers),
                Err(error) if self.looks_again(&error) => {
                    // Waited for: until then they hold places.
                    pollers.shutdown().await;
                    search.lost(error);
                }
                Err(error) => break (Err(error.into()), pollers),
            }
        };
        control.stopping.cancel();
        let mut pollers = Some(pollers);
        // The last one is the one that polled.
        let drains = sessions.iter().rev().map(|session| session.shared.drain(pollers.take().unwrap_or_default()));
        let drained = join_all(drains).await.into_iter().all(|drained| drained);
        let left = if drained { 0 } else { control.gate.in_flight() as u64 };
        let report = WorkerReport { left, ..control.tally.report(drained) };
        tracing::info!(worker = control.name, ?report, "the worker has stopped");
        ended.map(|()| report)
    }

    /// Puts together what the tasks of a running worker share.
    fn assemble(&self, targets: Targets) -> Result<Shared, WorkerError> {
        let Self { client, queue, group, handler, settings, observers, control, .. } = self;
        let (mut settings, client, handler, observers, control) =
            (settings.clone(), client.clone(), handler.clone(), observers.clone(), control.clone());
        let mode = targets.queue.mode;
        let fifo = mode == QueueMode::Fifo;
        if matches!(settings.on_failure, OnFailure::Republish(_)) && (fifo || mode.is_kafka()) {
            return Err(InvalidSettings::RepublishUnsupported(mode).into());
        }
        if fifo && settings.ordering.is_none() {
            settings.ordering = Ordering::Batch;
        }
        let source: Arc<dyn Source> = Arc::new(Service { client, path: targets.path, filter: settings.filter.clone() });
        let failure = FailurePolicy {
            on_failure: settings.on_failure.clone(),
            on_reject: settings.on_reject.clone(),
            on_undecodable: settings.on_undecodable.clone(),
            reject_queue: targets.reject_queue,
            undecodable_queue: targets.undecodable_queue,
            exhausted_queue: targets.exhausted_queue,
            found_again: Default::default(),
            delays: !fifo && !mode.is_kafka() && !settings.dead_letters,
            dead_letters: targets.queue.dead_letters == Some(true) && !settings.dead_letters,
            of_dead_letters: settings.dead_letters,
            worker: settings.name.clone(),
            queue: targets.queue.name,
            source: source.clone(),
        };
        let in_order = settings.ordering.is_batch();
        let origin =
            Arc::new(Origin { worker: settings.name.clone(), queue: queue.clone(), group: group.clone(), in_order });
        Ok(Shared::new(settings, control, source, handler, failure, observers, origin, fifo))
    }
}

/// Why a worker could not go on.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WorkerError(#[from] WorkerErrorKind);

#[derive(Debug, thiserror::Error)]
enum WorkerErrorKind {
    #[error(transparent)]
    Service(Error),
    #[error(transparent)]
    Settings(InvalidSettings),
    #[error("it died: {0}")]
    Died(String),
}

impl WorkerError {
    /// The service's refusal, where that is the reason.
    pub fn client_error(&self) -> Option<&Error> {
        match &self.0 {
            WorkerErrorKind::Service(error) => Some(error),
            WorkerErrorKind::Settings(_) | WorkerErrorKind::Died(_) => None,
        }
    }

    /// Whether the worker itself panicked, which is a fault of the runtime's: handlers' panics are contained.
    pub fn is_panic(&self) -> bool {
        matches!(self.0, WorkerErrorKind::Died(_))
    }

    /// The error of a worker whose task panicked, or was ended by others.
    pub(crate) fn died(reason: &impl ToString) -> Self {
        Self(WorkerErrorKind::Died(reason.to_string()))
    }
}

impl From<Error> for WorkerError {
    fn from(error: Error) -> Self {
        Self(WorkerErrorKind::Service(error))
    }
}

impl From<InvalidSettings> for WorkerError {
    fn from(error: InvalidSettings) -> Self {
        Self(WorkerErrorKind::Settings(error))
    }
}
