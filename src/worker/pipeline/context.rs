//! What the tasks of a running worker share.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::worker::{
    control::Control,
    dedup::{records::MessageRecords, redelivery::Redelivery},
    dispatch::Dispatch,
    failure::FailurePolicy,
    fetch::{polling::Polling, source::Source},
    handler::{
        delivery::{Delivery, Origin},
        kind::HandlerKind,
    },
    isolation::{Isolation, Paths},
    limit::acks::Acks,
    observe::event::{Event, Observers},
    settings::{Settings, warnings},
};

/// Handlers are quick when 99 of 100 take at most so long.
const QUICK_HANDLER_P99: Duration = Duration::from_millis(1);

/// What the tasks of a running worker share.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) control: Arc<Control>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) dispatch: Dispatch,
    pub(crate) failure: FailurePolicy,
    pub(crate) observers: Observers,
    pub(crate) origin: Arc<Origin>,
    pub(crate) isolation: Isolation,
    pub(crate) records: MessageRecords,
    pub(crate) acks: Acks,
    pub(crate) polling: Polling,
    pub(crate) batches: TaskTracker,
    /// As a FIFO queue needs it.
    pub(crate) one_batch_at_a_time: bool,
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
        let has_keys = settings.ordering.has_keys();
        // Key queues keep the order in which batches arrive, so two polls must not race each other.
        let polling = Polling::new(if one_batch_at_a_time || has_keys { Some(1) } else { settings.pollers });
        let alone = polling.max(settings.concurrency) == 1;
        Self {
            dispatch: Dispatch::new(handler, &settings),
            isolation: Isolation::new(Paths { alone, fifo: one_batch_at_a_time, lanes: has_keys }),
            records: MessageRecords::new(failure.queue.clone(), &settings),
            polling,
            settings,
            control,
            source,
            failure,
            observers,
            origin,
            acks: Acks::default(),
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
        let Some(reason) = self.records.explain(delivery.message()) else { return };
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
        self.records.remember_reason(delivery.message(), reason);
    }

    /// A message was not handed to its handler.
    pub(crate) fn skipped(&self, delivery: &Delivery) {
        self.emit(&Event::Skipped { delivery });
        self.remember_reason(delivery, Redelivery::NotStarted);
    }

    /// A rejected message will be redelivered, for want of dead letters: warns now and then, and says how long that should wait.
    pub(crate) fn rejected_again(&self, delivery: &Delivery) -> Duration {
        let message = delivery.message();
        let pause = self.failure.pauses.record(self.records.identity(message), message.attempt);
        if let Some(messages) = self.failure.pauses.due_warning() {
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
        matches!(self.dispatch.handler, HandlerKind::Single(_))
            && !self.settings.ordering.has_keys()
            && self.p99().is_some_and(|p99| p99 <= QUICK_HANDLER_P99)
    }

    /// The time that an acknowledgement needs, as far as is known.
    pub(crate) fn round_trip(&self) -> Duration {
        self.acks.times.quantiles().map_or(Duration::ZERO, |seen| seen.p99)
    }

    /// The most polls that may be in flight now.
    pub(crate) fn max_polls(&self) -> usize {
        self.polling.max(self.control.inflight.max_messages())
    }

    /// Whether messages that come now are handed back: nothing is to be begun, and handing back costs no failure.
    pub(crate) fn hands_back(&self) -> bool {
        self.control.is_held() && self.source.extensions().release()
    }
}
