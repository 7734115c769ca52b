//! [`Settings`]: the settings of a worker, with their defaults and the rules between them.

pub(crate) mod defaults;
pub(crate) mod invalid;
pub(crate) mod ordering;
pub(crate) mod values;
pub(crate) mod warnings;

use std::time::Duration;

use crate::{
    limits::{self, ACK_WAIT_SECS, MAX_CONCURRENCY, MAX_DELAY, POLL_WAIT_SECS, whole_seconds},
    queue::TagFilter,
    worker::{
        failure::policy::{OnFailure, OnReject, OnUndecodable},
        fetch::rate_limit::Rate,
        handler::batch::{Batching, Collect},
        settings::{
            invalid::InvalidSettings,
            ordering::Ordering,
            values::{AckWait, MaxMessages, OnStuck},
        },
        settlement::lease::handler_budget,
    },
};

/// The settings of a worker.
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
            on_stuck: OnStuck::KeepPermit,
        }
    }
}

impl Settings {
    /// Checks all rules that depend on the settings alone.
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        limits::in_range("concurrency", self.concurrency, &(1..=MAX_CONCURRENCY), "")?;
        limits::in_range("weight", self.weight, &(1..=1_000), "")?;
        limits::seconds("poll_wait", self.poll_wait, &POLL_WAIT_SECS)?;
        if let AckWait::Fixed(wait) = self.ack_wait {
            limits::seconds("ack_wait", wait, &ACK_WAIT_SECS)?;
        }
        self.max_messages.check()?;
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

    /// The lease to ask for, given the p99 of recent handler calls.
    pub(crate) fn lease(&self, p99: Option<Duration>) -> Duration {
        let linger = self.linger();
        let lease = self.ack_wait.lease(self.handler_timeout.map(|timeout| timeout.saturating_add(linger)), p99);
        if self.handler_timeout.is_some() || self.ack_wait != AckWait::Auto {
            return lease;
        }
        lease.saturating_add(Duration::from_secs(whole_seconds(linger))).min(Duration::from_secs(*ACK_WAIT_SECS.end()))
    }

    /// How long a message may wait for its batch.
    pub(crate) fn linger(&self) -> Duration {
        match self.batching {
            Some(Batching::Collected(collect)) => collect.linger,
            _ => Duration::ZERO,
        }
    }

    /// The names of the parking queues.
    pub(crate) fn parking_queues(&self) -> impl Iterator<Item = &str> {
        let undecodable = match &self.on_undecodable {
            OnUndecodable::Own(policy) => Some(policy),
            OnUndecodable::Reject | OnUndecodable::Retry => None,
        };
        let exhausted = match &self.on_failure {
            OnFailure::Republish(republish) => Some(&republish.then),
            OnFailure::Redeliver => None,
        };
        [Some(&self.on_reject), undecodable, exhausted].into_iter().flatten().filter_map(|policy| match policy {
            OnReject::Park(queue) => Some(queue.as_str()),
            OnReject::Fail | OnReject::Discard => None,
        })
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
    fn copies_and_an_order_exclude_each_other() {
        let settings = Settings {
            on_failure: OnFailure::Republish(crate::worker::Republish::default()),
            ordering: Ordering::Batch,
            ..Settings::default()
        };
        assert_eq!(settings.check(), Err(InvalidSettings::RepublishBreaksOrder));
    }
}
