//! What the tasks of a running worker share.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    message::ReceivedMessage,
    worker::{
        control::Control,
        dedup::{
            identity::Identity,
            in_progress::RunRegistry,
            passed_on::PassedOn,
            redelivery::{Redelivery, RedeliveryLog},
        },
        dispatch::{collector::Collector, key_queues::KeyedQueues},
        failure::{FailurePolicy, exhausted::ExhaustedMessages, reject_pauses::RejectPauses},
        fetch::{
            concurrency::{self, PollConcurrency},
            pollers::PollerCount,
            polls::InFlightPolls,
            source::Source,
        },
        handler::{
            batch::Batching,
            delivery::{Delivery, Origin},
            kind::HandlerKind,
        },
        isolation::{Isolation, Paths},
        limit::ack_backlog::AckBacklog,
        observe::{
            event::{Event, Observers},
            latency::Latency,
        },
        settings::{Settings, warnings},
    },
};

/// How long messages are remembered that come again: past the longest lease after which they can.
const REDELIVERY_WINDOW: Duration = Duration::from_secs(360);

/// Handlers are quick when 99 of 100 take at most so long.
const QUICK_HANDLER_P99: Duration = Duration::from_millis(1);

/// What the tasks of a running worker share.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) control: Arc<Control>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) handler: HandlerKind,
    /// Where the messages of all batches meet for a batch handler; `None` where each batch has a gathering of its own.
    collector: Option<Arc<Collector>>,
    pub(crate) failure: FailurePolicy,
    pub(crate) observers: Observers,
    pub(crate) origin: Arc<Origin>,
    pub(crate) isolation: Isolation,
    pub(crate) lanes: KeyedQueues,
    pub(crate) run_registry: RunRegistry,
    pub(crate) passed_on: PassedOn,
    pub(crate) exhausted_messages: ExhaustedMessages,
    pub(crate) redelivery_log: RedeliveryLog,
    pub(crate) reject_pauses: RejectPauses,
    pub(crate) acks: AckBacklog,
    /// How long acknowledgements take: the round trip that leases keep free.
    pub(crate) ack_times: Latency,
    /// The number of polls to keep out, shared by the pollers.
    pub(crate) poll_concurrency: watch::Sender<PollConcurrency>,
    pub(crate) pollers: PollerCount,
    /// The polls in flight.
    pub(crate) polls: InFlightPolls,
    pub(crate) batches: TaskTracker,
    /// As a FIFO queue needs it.
    pub(crate) one_batch_at_a_time: bool,
    /// One poll at a time, so that batches arrive in their order.
    pub(crate) in_turn: bool,
}

impl Context {
    #[expect(clippy::too_many_arguments, reason = "the one place where a worker is put together")]
    pub(crate) fn new(
        settings: Settings,
        control: Arc<Control>,
        source: Arc<dyn Source>,
        handler: HandlerKind,
        failure: FailurePolicy,
        observers: Observers,
        origin: Arc<Origin>,
        one_batch_at_a_time: bool,
    ) -> Self {
        // Lanes keep the order in which batches arrive, so two polls must not race each other.
        let in_turn = one_batch_at_a_time || settings.ordering.has_keys();
        let collector = match settings.batching {
            Some(Batching::Collected(limits)) if !settings.ordering.is_batch() => Some(Collector::collected(limits)),
            Some(_) | None => None,
        };
        let alone = in_turn || settings.pollers == Some(1) || concurrency::max_polls(settings.concurrency) == 1;
        Self {
            acks: AckBacklog::new(),
            poll_concurrency: watch::Sender::new(PollConcurrency::new(1)),
            in_turn,
            isolation: Isolation::new(Paths { alone, fifo: one_batch_at_a_time, lanes: settings.ordering.has_keys() }),
            redelivery_log: RedeliveryLog::new(failure.queue.clone(), REDELIVERY_WINDOW),
            reject_pauses: RejectPauses::new(),
            settings,
            control,
            source,
            handler,
            collector,
            failure,
            observers,
            origin,
            lanes: KeyedQueues::default(),
            run_registry: RunRegistry::new(REDELIVERY_WINDOW),
            passed_on: PassedOn::new(REDELIVERY_WINDOW),
            exhausted_messages: ExhaustedMessages::new(),
            ack_times: Latency::default(),
            pollers: PollerCount::default(),
            polls: InFlightPolls::default(),
            batches: TaskTracker::new(),
            one_batch_at_a_time,
        }
    }

    /// Tells the observers.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.observers.emit(&self.origin, event);
    }

    /// Says why a message came again, if it did.
    pub(crate) fn explain(&self, delivery: &Delivery) {
        let identity = self.identity(delivery.message());
        let Some(reason) = self.redelivery_log.explain(delivery.message(), identity.as_ref()) else { return };
        tracing::info!(
            worker = self.settings.name,
            message = delivery.sequence(),
            attempt = delivery.attempt(),
            reason = reason.name(),
            "a message came again: {reason}"
        );
        self.emit(&Event::Redelivered { delivery, reason });
    }

    /// Notes why a message is going to come again.
    pub(crate) fn remember_reason(&self, delivery: &Delivery, reason: Redelivery) {
        if let Some(identity) = self.identity(delivery.message()) {
            self.redelivery_log.record(identity, reason);
        }
    }

    /// A message was not handed to its handler.
    pub(crate) fn skipped(&self, delivery: &Delivery) {
        self.emit(&Event::Skipped { delivery });
        self.remember_reason(delivery, Redelivery::NotStarted);
    }

    /// A rejected message will be redelivered, for want of dead letters: warns now and then, and says how long that should wait.
    pub(crate) fn rejected_again(&self, delivery: &Delivery) -> Duration {
        let message = delivery.message();
        let pause = self.reject_pauses.record(self.identity(message), message.attempt);
        if let Some(messages) = self.reject_pauses.due_warning() {
            tracing::warn!(
                worker = self.settings.name,
                messages,
                attempt = delivery.attempt(),
                ?pause,
                "rejected messages are redelivered, because {}: {}",
                self.failure.why_it_loops(),
                warnings::REMEDY
            );
        }
        pause
    }

    /// Whether a handler that begins `now` has enough time, as far as is known: the p99 of its runs, half of what its message arrived with
    /// at most.
    pub(crate) fn has_time(&self, delivery: &Delivery, now: Instant) -> bool {
        let left = delivery.deadline().saturating_duration_since(now);
        !left.is_zero() && left >= self.p99().unwrap_or_default().min(delivery.budget() / 2)
    }

    /// What a call of several messages is left of the lease when they are collected: the handler's timeout, else twice the p99
    /// of its calls, else half of the lease.
    pub(crate) fn call_budget(&self) -> Duration {
        let p99 = self.p99();
        let half = self.lease_for(p99) / 2;
        self.settings.handler_timeout.unwrap_or_else(|| p99.map_or(half, |p99| half.min(p99 * 2)))
    }

    /// The lease to ask for.
    pub(crate) fn ack_wait(&self) -> Duration {
        self.lease_for(self.p99())
    }

    pub(crate) fn lease_for(&self, p99: Option<Duration>) -> Duration {
        self.settings.lease(p99)
    }

    /// The p99 of the handler's recent runs.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.control.latency.quantiles().map(|seen| seen.p99)
    }

    /// Whether nearly all handlers are known to end so soon that nobody need mind waiting for one of them. In lanes the end of one begins
    /// others.
    pub(crate) fn has_quick_handlers(&self) -> bool {
        matches!(self.handler, HandlerKind::Single(_))
            && !self.settings.ordering.has_keys()
            && self.p99().is_some_and(|p99| p99 <= QUICK_HANDLER_P99)
    }

    /// Where the `messages` of a consumed batch meet for their call; `None` when each has its own.
    pub(crate) fn collector(&self, messages: usize) -> Option<Arc<Collector>> {
        match (&self.handler, &self.collector) {
            (HandlerKind::Single(_), _) => None,
            (HandlerKind::Batch(_), Some(collector)) => Some(collector.clone()),
            (HandlerKind::Batch(_), None) => Some(Collector::consumed(messages, self.settings.ordering.is_batch())),
        }
    }

    /// The time that an acknowledgement needs, as far as is known.
    pub(crate) fn round_trip(&self) -> Duration {
        self.ack_times.quantiles().map_or(Duration::ZERO, |seen| seen.p99)
    }

    /// What the work on a message is remembered by, where it may be.
    pub(crate) fn dedup_identity(&self, message: &ReceivedMessage) -> Option<Identity> {
        self.settings.remember.then(|| self.identity(message)).flatten()
    }

    /// The same of the messages of a batch.
    pub(crate) fn identities(&self, messages: &[ReceivedMessage]) -> impl Iterator<Item = Identity> {
        messages.iter().filter_map(|message| self.dedup_identity(message))
    }

    /// What tells a message from others.
    pub(crate) fn identity(&self, message: &ReceivedMessage) -> Option<Identity> {
        Identity::of(message, self.settings.unique_attribute.as_deref())
    }

    pub(crate) fn adjust_poll_concurrency(&self, adjust: impl FnOnce(&mut PollConcurrency)) {
        self.poll_concurrency.send_if_modified(|pace| {
            let before = *pace;
            adjust(pace);
            *pace != before
        });
    }

    /// The most polls that may be out now.
    pub(crate) fn max_polls(&self) -> usize {
        let useful = || concurrency::max_polls(self.control.inflight.max_messages());
        if self.in_turn { 1 } else { self.settings.pollers.unwrap_or_else(useful) }
    }

    /// Waits while acknowledgements fall behind: fetching more would only make more of them late. Cancel-safe.
    pub(crate) async fn until_acknowledged(&self) {
        self.acks.below(self.max_polls().max(8) * 2).await;
    }

    /// Whether messages that come now are handed back: nothing is to be begun, and handing back costs no failure.
    pub(crate) fn hands_back(&self) -> bool {
        self.control.is_held() && self.source.extensions().release()
    }

    /// Waits while fetching is paused. Cancel-safe.
    pub(crate) async fn until_running(&self) {
        if !*self.control.paused.borrow() {
            return;
        }
        // The sender lives as long as `self`.
        let _ = self.control.paused.subscribe().wait_for(|paused| !paused).await;
    }
}
