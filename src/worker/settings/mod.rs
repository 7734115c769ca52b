//! The settings of a worker, and the rules between them.

pub(crate) mod defaults;
pub(crate) mod warnings;

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{
    contain::contained,
    limits::{
        self, ACK_WAIT_SECS, LimitError, MAX_CONCURRENCY, MAX_DELAY, MAX_MESSAGES, POLL_WAIT_SECS, whole_seconds,
    },
    queue::{QueueMode, TagFilter},
    worker::{
        failure::{OnFailure, OnReject, OnUndecodable},
        fetch::rate_limit::Rate,
        handler::{
            batch::{Batching, Collect},
            delivery::Delivery,
        },
        settlement::lease::handler_budget,
    },
};

/// In which order a worker handles messages.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Ordering {
    /// All at once, as they come; on a FIFO queue, strictly in order instead. The default.
    #[default]
    None,
    /// The messages of a batch one after the other, batches side by side. A failure keeps those behind it from starting.
    Batch,
    /// One message of a key at a time, in order, other keys side by side. A failed message stops its key until it was
    /// reported and comes again. Messages without the key share one lane.
    Key(KeyFn),
}

/// What computes the key of a message.
pub type KeyFn = Arc<dyn Fn(&Delivery) -> Option<String> + Send + Sync>;

impl Ordering {
    /// Lanes by the text of an attribute.
    pub fn by_attribute(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::Key(Arc::new(move |delivery| delivery.attributes().text(&name).map(Cow::into_owned)))
    }

    /// The lane of a message; `None` where there are no lanes.
    pub(crate) fn key(&self, delivery: &Delivery) -> Option<String> {
        match self {
            Self::Key(key) => Some(key_of(key, delivery).unwrap_or_default()),
            Self::None | Self::Batch => None,
        }
    }

    /// Whether messages are handled in an order at all.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether there are lanes.
    pub(crate) fn has_lanes(&self) -> bool {
        matches!(self, Self::Key(_))
    }

    /// Whether a batch is worked off one message after the other.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(self, Self::Batch)
    }
}

/// The key of a message; none where computing it panics.
fn key_of(key: &KeyFn, delivery: &Delivery) -> Option<String> {
    contained(|| key(delivery)).unwrap_or_else(|panic| {
        tracing::error!(
            queue = delivery.queue(),
            panic,
            "the key function panicked: its message shares the lane of those without a key"
        );
        None
    })
}

impl std::fmt::Debug for Ordering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Batch => "Batch",
            Self::Key(_) => "Key",
        })
    }
}

/// How many messages a poll asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxMessages {
    /// Ten while handlers are quick and even, fewer the more their durations differ. The default.
    #[default]
    Auto,
    /// This many: 1-10.
    Fixed(usize),
}

/// How long the service waits for the acknowledgement of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AckWait {
    /// Three times the p99 of the handler's recent runs and what the acknowledgement needs, within 15-300 s; 30 s, or what
    /// the handler's timeout needs, before anything is known.
    Auto,
    /// This long, in whole seconds: 15-300 s.
    Fixed(Duration),
}

impl From<Duration> for AckWait {
    fn from(wait: Duration) -> Self {
        Self::Fixed(wait)
    }
}

impl AckWait {
    /// The lease to ask for, for a handler with this timeout and this p99.
    pub(crate) fn lease(self, timeout: Option<Duration>, p99: Option<Duration>) -> Duration {
        let seconds = match (self, timeout, p99) {
            (Self::Fixed(wait), ..) => return wait,
            (Self::Auto, Some(timeout), _) => whole_seconds(timeout).saturating_add(AUTO_SPARE),
            (Self::Auto, None, Some(p99)) => whole_seconds(p99.saturating_mul(3)).saturating_add(AUTO_SPARE),
            (Self::Auto, None, None) => 30,
        };
        Duration::from_secs(seconds.clamp(*ACK_WAIT_SECS.start(), *ACK_WAIT_SECS.end()))
    }
}

/// What [`AckWait::Auto`] adds to the time of the handler, in seconds: two round trips and the rounding.
const AUTO_SPARE: u64 = 5;

/// What becomes of the place of a handler that goes on although it was stopped, because it blocks its thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStuck {
    /// It stays taken until the handler ends: no more than `concurrency` handlers ever run, and when all of them are stuck nothing is
    /// fetched any more. The default.
    #[default]
    KeepPlace,
    /// It is given to another message: work goes on at full width as long as the runtime has threads that are not blocked.
    FreePlace,
}

/// Everything that can be set on a worker, with its defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) concurrency: usize,
    pub(crate) weight: u32,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) max_messages: MaxMessages,
    pub(crate) poll_wait: Duration,
    pub(crate) ack_wait: AckWait,
    pub(crate) pollers: Option<usize>,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) ordering: Ordering,
    pub(crate) batching: Option<Batching>,
    pub(crate) filter: TagFilter,
    pub(crate) dead_letters: bool,
    pub(crate) on_failure: OnFailure,
    pub(crate) on_reject: OnReject,
    pub(crate) on_undecodable: OnUndecodable,
    pub(crate) rate_limit: Option<Rate>,
    pub(crate) remember: bool,
    pub(crate) unique_attribute: Option<String>,
    pub(crate) on_stuck: OnStuck,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            concurrency: 32,
            weight: 1,
            max_in_flight_bytes: 64 * 1024 * 1024,
            max_messages: MaxMessages::Auto,
            poll_wait: Duration::from_secs(20),
            ack_wait: AckWait::Fixed(Duration::from_secs(30)),
            pollers: None,
            handler_timeout: None,
            grace: Duration::from_secs(25),
            ordering: Ordering::None,
            batching: None,
            filter: TagFilter::default(),
            dead_letters: false,
            on_failure: OnFailure::Redeliver,
            on_reject: OnReject::Fail,
            on_undecodable: OnUndecodable::Reject,
            rate_limit: None,
            remember: true,
            unique_attribute: None,
            on_stuck: OnStuck::KeepPlace,
        }
    }
}

/// A setting that cannot work, or two that cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// A value outside the service's limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The handler's timeout does not leave time to acknowledge.
    #[error(
        "handler_timeout is {timeout:?}, but a lease of {ack_wait:?} leaves a handler {budget:?}: \
         leases cannot be extended, so raise ack_wait (at most 300 s) or lower the timeout"
    )]
    TimeoutAboveLease {
        /// The timeout that was set.
        timeout: Duration,
        /// The lease that was set.
        ack_wait: Duration,
        /// The longest a handler can run.
        budget: Duration,
    },
    /// The queue, the group or the handler was not set.
    #[error("the worker has no {0}: set it with WorkerBuilder::{0}")]
    Missing(&'static str),
    /// Messages are to be collected for a handler that takes one at a time.
    #[error(
        "batching is set, but the handler takes one message at a time: set WorkerBuilder::batch_handler instead of handler"
    )]
    BatchingOfSingles,
    /// Layers know single deliveries.
    #[error(
        "a layer was put around a batch handler, but layers handle one message at a time: set WorkerBuilder::handler instead of batch_handler"
    )]
    LayerOfBatches,
    /// A batch that is collected would never be complete.
    #[error(
        "max_messages of a collected batch is {max_messages}, but the concurrency is {concurrency}: a message that waits for \
         its batch is in flight, so raise the concurrency to {max_messages} at least, or collect fewer"
    )]
    CollectAboveConcurrency {
        /// The size of a batch that was set.
        max_messages: usize,
        /// The concurrency that was set.
        concurrency: usize,
    },
    /// Waiting for a batch would use up the lease.
    #[error(
        "a collected batch lingers for {linger:?}, which with a handler_timeout of {timeout:?} is more than the {budget:?} that \
         a lease of {ack_wait:?} leaves: leases cannot be extended, so raise ack_wait (at most 300 s) or shorten one of the two"
    )]
    LingerAboveLease {
        /// The linger that was set.
        linger: Duration,
        /// The handler's timeout that was set, or zero.
        timeout: Duration,
        /// The lease that was set.
        ack_wait: Duration,
        /// The longest that a message can be in flight.
        budget: Duration,
    },
    /// Dead letters have no labels to filter by.
    #[error("a dead-letter worker cannot filter by labels: dead letters carry none")]
    LabelsOfDeadLetters,
    /// A message whose attempts are used up would be handled again and again.
    #[error(
        "on_failure republish ends with `then: fail`, but queue {queue} has no dead letters, so that a message would be redelivered \
         for ever after its last attempt: create the queue with max_consume_count, or let `then` park or discard it"
    )]
    NoDeadLettersForExhausted {
        /// The queue's name.
        queue: String,
    },
    /// The queue's mode has no delayed copies.
    #[error("on_failure republish needs delays and no order, which a {0} queue does not have: use redeliver")]
    RepublishUnsupported(QueueMode),
    /// Copies would break the order that was asked for.
    #[error(
        "on_failure republish sends a copy to the end of the queue, which breaks the ordering that was asked for: use redeliver"
    )]
    RepublishBreaksOrder,
}

impl Settings {
    /// Checks every rule that needs nothing but the settings.
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        limits::in_range("concurrency", self.concurrency, &(1..=MAX_CONCURRENCY), "")?;
        limits::in_range("weight", self.weight, &(1..=1_000), "")?;
        limits::seconds("poll_wait", self.poll_wait, &POLL_WAIT_SECS)?;
        if let AckWait::Fixed(wait) = self.ack_wait {
            limits::seconds("ack_wait", wait, &ACK_WAIT_SECS)?;
        }
        check_max_messages(self.max_messages)?;
        if let Some(pollers) = self.pollers {
            limits::in_range("pollers", pollers, &(1..=limits::MAX_POLLERS), "")?;
        }
        limits::labels(&self.filter.tags)?;
        let ack_wait = self.lease(None);
        let budget = handler_budget(ack_wait);
        match self.handler_timeout {
            Some(timeout) if timeout >= budget => {
                return Err(InvalidSettings::TimeoutAboveLease { timeout, ack_wait, budget });
            }
            Some(_) | None => {}
        }
        if let Some(Batching::Collected(collect)) = self.batching {
            self.check_collect(collect, ack_wait)?;
        }
        if self.dead_letters && !self.filter.is_empty() {
            return Err(InvalidSettings::LabelsOfDeadLetters);
        }
        if let OnFailure::Republish(republish) = &self.on_failure {
            limits::in_range("max_attempts of republish", republish.max_attempts, &(1..=u32::MAX), "")?;
            limits::delay_up_to("max_delay of republish", republish.max_delay, MAX_DELAY)?;
            limits::delay_up_to("first_delay of republish", republish.first_delay, republish.max_delay)?;
        }
        if matches!(self.on_failure, OnFailure::Republish(_)) && !self.ordering.is_none() {
            return Err(InvalidSettings::RepublishBreaksOrder);
        }
        Ok(())
    }

    /// The lease to ask for, when the p99 of the handler's runs is this.
    pub(crate) fn lease(&self, p99: Option<Duration>) -> Duration {
        let held = self.held();
        let lease = self.ack_wait.lease(self.handler_timeout.map(|timeout| timeout.saturating_add(held)), p99);
        if self.handler_timeout.is_some() || self.ack_wait != AckWait::Auto {
            return lease;
        }
        lease.saturating_add(Duration::from_secs(whole_seconds(held))).min(Duration::from_secs(*ACK_WAIT_SECS.end()))
    }

    /// How long a message may wait for its batch.
    pub(crate) fn held(&self) -> Duration {
        match self.batching {
            Some(Batching::Collected(collect)) => collect.linger,
            _ => Duration::ZERO,
        }
    }

    fn check_collect(
        &self,
        Collect { max_messages, max_bytes, linger }: Collect,
        ack_wait: Duration,
    ) -> Result<(), InvalidSettings> {
        let concurrency = self.concurrency;
        limits::in_range("max_messages of a collected batch", max_messages, &(1..=MAX_CONCURRENCY), "")?;
        limits::in_range("max_bytes of a collected batch", max_bytes, &(1..=self.max_in_flight_bytes), " bytes")?;
        if max_messages > concurrency {
            return Err(InvalidSettings::CollectAboveConcurrency { max_messages, concurrency });
        }
        let (timeout, budget) = (self.handler_timeout.unwrap_or_default(), handler_budget(ack_wait));
        if linger.saturating_add(timeout) >= budget {
            return Err(InvalidSettings::LingerAboveLease { linger, timeout, ack_wait, budget });
        }
        Ok(())
    }
}

/// Checks how many messages a poll asks for.
pub(crate) fn check_max_messages(messages: MaxMessages) -> Result<(), InvalidSettings> {
    match messages {
        MaxMessages::Auto => Ok(()),
        MaxMessages::Fixed(count) => Ok(limits::in_range("max_messages", count, &(1..=MAX_MESSAGES), "")?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_timeout_that_the_lease_cannot_hold_is_refused_with_the_remedy() {
        let settings = Settings { handler_timeout: Some(Duration::from_secs(29)), ..Settings::default() };
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("29s") && error.contains("30s") && error.contains("raise ack_wait"), "{error}");
        let settings = Settings { handler_timeout: Some(Duration::from_secs(28)), ..Settings::default() };
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn a_batch_that_cannot_fill_or_outlasts_the_lease_is_refused_with_the_remedy() {
        let refused = |collect, concurrency| {
            let batching = Some(Batching::Collected(collect));
            Settings { batching, concurrency, ..Settings::default() }.check().unwrap_err().to_string()
        };
        let error = refused(Collect { max_messages: 50, ..Collect::default() }, 49);
        assert!(error.contains("is 50") && error.contains("concurrency is 49") && error.contains("raise"), "{error}");
        let error = refused(Collect { linger: Duration::from_secs(29), ..Collect::default() }, 100);
        assert!(error.contains("29s") && error.contains("30s") && error.contains("raise ack_wait"), "{error}");
        refused(Collect { max_bytes: 0, ..Collect::default() }, 100);
        let batching = Some(Batching::Collected(Collect::default()));
        assert_eq!(Settings { batching, concurrency: 100, ..Settings::default() }.check(), Ok(()));
    }

    #[test]
    fn values_outside_the_services_limits_are_refused() {
        let republish = |first_delay, max_delay| {
            let policy = crate::worker::Republish { first_delay, max_delay, ..crate::worker::Republish::default() };
            Settings { on_failure: OnFailure::Republish(policy), ..Settings::default() }
        };
        let bad = [
            Settings { concurrency: 0, ..Settings::default() },
            Settings { weight: 0, ..Settings::default() },
            Settings { poll_wait: Duration::from_secs(61), ..Settings::default() },
            Settings { ack_wait: Duration::from_secs(14).into(), ..Settings::default() },
            Settings { ack_wait: Duration::from_millis(300_900).into(), ..Settings::default() },
            Settings { ack_wait: Duration::from_millis(14_900).into(), ..Settings::default() },
            Settings { ack_wait: Duration::MAX.into(), ..Settings::default() },
            Settings { poll_wait: Duration::from_millis(60_900), ..Settings::default() },
            Settings { poll_wait: Duration::from_millis(500), ..Settings::default() },
            Settings { poll_wait: Duration::MAX, ..Settings::default() },
            Settings { max_messages: MaxMessages::Fixed(11), ..Settings::default() },
            republish(Duration::from_secs(1), MAX_DELAY + Duration::from_millis(900)),
            republish(Duration::from_millis(5_900), Duration::from_millis(5_200)),
            Settings { pollers: Some(0), ..Settings::default() },
            Settings { filter: TagFilter { tags: vec!["a b".into()], ..TagFilter::default() }, ..Settings::default() },
        ];
        for settings in bad {
            assert!(matches!(settings.check(), Err(InvalidSettings::Limit(_))), "{settings:?}");
        }
    }

    #[test]
    fn the_longest_times_are_refused_or_do_no_harm() {
        let max = Duration::MAX;
        let timeout = Settings { handler_timeout: Some(max), ack_wait: AckWait::Auto, ..Settings::default() };
        assert!(matches!(timeout.check(), Err(InvalidSettings::TimeoutAboveLease { .. })));
        let grace = Settings { grace: max, ..Settings::default() };
        assert_eq!(grace.check(), Ok(()));
        let batching = Some(Batching::Collected(Collect { linger: max, ..Collect::default() }));
        let linger = Settings { batching, concurrency: 100, ..Settings::default() };
        assert!(matches!(linger.check(), Err(InvalidSettings::LingerAboveLease { .. })));
        assert_eq!(AckWait::Auto.lease(None, Some(max)), Duration::from_secs(300));
    }

    #[test]
    fn an_automatic_lease_follows_the_handler() {
        let seconds = Duration::from_secs;
        assert_eq!(AckWait::Auto.lease(None, None), seconds(30));
        assert_eq!(AckWait::Auto.lease(None, Some(Duration::from_millis(20))), seconds(15));
        assert_eq!(AckWait::Auto.lease(None, Some(Duration::from_millis(10_900))), seconds(38), "32.7 s and 5 s");
        assert_eq!(AckWait::Auto.lease(None, Some(seconds(40))), seconds(125));
        assert_eq!(AckWait::Auto.lease(None, Some(seconds(299))), seconds(300));
        assert_eq!(AckWait::Auto.lease(Some(seconds(60)), Some(seconds(1))), seconds(65));
        assert_eq!(AckWait::Fixed(seconds(77)).lease(Some(seconds(60)), Some(seconds(1))), seconds(77));
    }

    #[test]
    fn copies_and_an_order_exclude_each_other() {
        let settings = Settings {
            on_failure: OnFailure::Republish(crate::worker::Republish::default()),
            ordering: Ordering::Batch,
            ..Settings::default()
        };
        assert_eq!(settings.check(), Err(InvalidSettings::RepublishBreaksOrder));
    }
}
