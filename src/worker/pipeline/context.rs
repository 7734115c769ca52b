//! [`Context`]: the state that the tasks of a running worker share.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::text::brief;
use crate::worker::{
    control::Control,
    dedup::{identity::Identity, records::MessageRecords, redelivery::Redelivery},
    dispatch::Dispatch,
    failure::{FailurePolicy, Loop},
    fetch::{polling::Polling, source::Source},
    handler::{
        delivery::{Delivery, Origin},
        kind::HandlerKind,
    },
    isolation::{FetchMode, Isolation},
    limit::acks::Acks,
    observe::{
        event::{Event, Observers},
        log::log_message,
        occasionally::Occasionally,
    },
    pipeline::inline::InlineBatches,
    settings::Settings,
    settlement::lease::least_run,
};

/// Handlers whose p99 is at most this are quick.
const QUICK_HANDLER_P99: Duration = Duration::from_millis(1);

/// The state that the tasks of a running worker share.
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
    /// Messages that were not handled for lack of time.
    out_of_time: Occasionally,
    pub(crate) polling: Polling,
    pub(crate) batches: TaskTracker,
    pub(crate) inline_batches: Arc<InlineBatches>,
    /// Whether the next batch is fetched only after this one is finished, as a FIFO queue requires.
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
        let single_poller = polling.max(settings.concurrency) == 1;
        Self {
            dispatch: Dispatch::new(handler, &settings),
            isolation: Isolation::new(FetchMode { single_poller, fifo: one_batch_at_a_time, keys: has_keys })
                .shown_in(&control.isolated),
            records: MessageRecords::new(failure.queue.clone(), settings.remember, settings.unique_key.clone()),
            polling,
            settings,
            control,
            source,
            failure,
            observers,
            origin,
            acks: Acks::default(),
            out_of_time: Occasionally::default(),
            batches: TaskTracker::new(),
            inline_batches: Arc::default(),
            one_batch_at_a_time,
        }
    }

    /// Sends an event to the observers.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.observers.emit(&self.origin, event);
    }

    /// Reports why a message was redelivered, if it was.
    pub(crate) fn explain(&self, delivery: &Delivery) {
        let Some(reason) = self.records.explain(delivery.message()) else { return };
        log_message!(
            info,
            delivery,
            sequence = delivery.sequence(),
            reason = reason.name(),
            "a message was redelivered: {reason}"
        );
        self.emit(&Event::Redelivered { delivery, reason });
    }

    /// Records why a message is going to be redelivered.
    pub(crate) fn remember_reason(&self, delivery: &Delivery, reason: Redelivery) {
        self.records.remember_reason(delivery.message(), reason);
    }

    /// Reports a message that was not passed to its handler.
    pub(crate) fn skipped(&self, delivery: &Delivery) {
        self.emit(&Event::Skipped { delivery });
        self.remember_reason(delivery, Redelivery::NotStarted);
    }

    /// Handles a rejected message that will be redelivered because there are no dead letters: logs a warning now and
    /// then, and returns how long the redelivery should wait.
    pub(crate) fn rejected_again(&self, delivery: &Delivery, why: Loop) -> Duration {
        let message = delivery.message();
        let by_body = || self.failure.wraps.then(|| Identity::of_body(message));
        let identity = self.records.identity(message).or_else(by_body);
        let pause = self.failure.pauses.record(identity, message.attempt);
        // The remedy would be wrong where the policy has one that failed.
        if why == Loop::Kept
            && let Some(messages) = self.failure.pauses.due_warning()
        {
            log_message!(
                warn,
                delivery,
                messages,
                pause = %brief(pause),
                "rejected messages are redelivered, because {}: {}",
                self.failure.why_it_loops(),
                self.failure.remedy()
            );
        }
        pause
    }

    /// Whether a handler that starts `now` probably has enough time: the p99 of its calls, but at most half of the time
    /// that the message arrived with, and in any case the [least](least_run) that a handler needs. Logs a warning now and then if not.
    pub(crate) fn has_time(&self, delivery: &Delivery, now: Instant) -> bool {
        let left = delivery.deadline().saturating_duration_since(now);
        if left >= delivery.ample_time() {
            return true;
        }
        let budget = delivery.budget();
        let needed = self.p99().unwrap_or_default().min(budget / 2).max(least_run(budget));
        if left < needed {
            self.ran_out_of_time(delivery, left, needed);
        }
        left >= needed
    }

    fn ran_out_of_time(&self, delivery: &Delivery, left: Duration, needed: Duration) {
        let Some(messages) = self.out_of_time.due() else { return };
        log_message!(
            warn,
            delivery,
            messages,
            left = %brief(left),
            needed = %brief(needed),
            arrived_with = %brief(delivery.budget()),
            round_trip = %brief(self.round_trip()),
            "messages are redelivered without being handled, because too little of their leases was left: raise ack_wait, lower \
             max_messages if they wait for each other, or find out why the service answers slowly"
        );
    }

    /// The time that is kept for the call of a collected batch: the handler timeout if it is set, otherwise twice the
    /// p99 of its calls, and at most half of the lease.
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

    /// The p99 of recent handler calls.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.control.latency.quantiles().map(|seen| seen.p99)
    }

    /// Whether the handler is known to be so quick that messages need not be started in parallel. Not with ordering by
    /// key, where the end of one message starts another.
    pub(crate) fn has_quick_handlers(&self) -> bool {
        matches!(self.dispatch.handler, HandlerKind::Single(_))
            && !self.settings.ordering.has_keys()
            && self.p99().is_some_and(|p99| p99 <= QUICK_HANDLER_P99)
    }

    /// The p99 of recent acknowledgements; zero before the first one.
    pub(crate) fn round_trip(&self) -> Duration {
        self.acks.times.quantiles().map_or(Duration::ZERO, |seen| seen.p99)
    }

    /// The maximum number of polls in flight now.
    pub(crate) fn max_polls(&self) -> usize {
        self.polling.max(self.control.inflight.max_messages())
    }

    /// Whether messages that arrive now are handed back, because nothing may be started and handing back counts no
    /// failure.
    pub(crate) fn hands_back(&self) -> bool {
        self.control.is_suspended() && self.source.extensions().release()
    }
}
