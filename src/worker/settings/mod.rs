//! [`Settings`]: the settings of a worker, with their defaults and the rules between them.

pub mod defaults;
pub(crate) mod ordering;
pub(crate) mod values;
pub(crate) mod warnings;

use std::time::Duration;

use dms_protocol::{
    internal::{duration, setting_checks::SettingChecks},
    settings::InvalidSettings,
};

use crate::{
    json,
    limits::{self, ACK_WAIT_SECS, MAX_CONCURRENCY, MAX_DELAY, MAX_LABELS, whole_seconds},
    queue::TagFilter,
    wire::Dialect,
    worker::{
        dedup::identity::UniqueKey,
        failure::policy::{OnFailure, OnReject, OnUndecodable, Republish},
        fetch::rate_limit::Rate,
        handler::batch::{Batching, Collect},
        settings::{
            ordering::Ordering,
            values::{AckWait, MaxMessages, OnStuck},
        },
        settlement::lease::handler_budget,
    },
};

/// The settings of a worker. The setters of [`WorkerBuilder`](crate::worker::WorkerBuilder) describe them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The API that the client speaks.
    pub(crate) dialect: Dialect,
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
    pub(crate) unique_key: Option<UniqueKey>,
    /// The attempts that the worker counts; `None` if only the service limits them.
    pub(crate) max_attempts: Option<u32>,
    pub(crate) on_stuck: OnStuck,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dialect: Dialect::Dms,
            name: String::new(),
            concurrency: defaults::CONCURRENCY,
            weight: defaults::WEIGHT,
            max_in_flight_bytes: defaults::MAX_IN_FLIGHT_BYTES,
            max_messages: MaxMessages::Auto,
            poll_wait: defaults::POLL_WAIT,
            ack_wait: AckWait::Fixed(defaults::ACK_WAIT),
            pollers: None,
            handler_timeout: None,
            grace: defaults::SHUTDOWN_GRACE,
            ordering: Ordering::None,
            batching: None,
            filter: TagFilter::default(),
            dead_letters: false,
            on_failure: OnFailure::Redeliver,
            on_reject: OnReject::Fail,
            on_undecodable: OnUndecodable::Reject,
            rate_limit: None,
            remember: true,
            unique_key: None,
            max_attempts: None,
            on_stuck: OnStuck::KeepPermit,
        }
    }
}

impl Settings {
    /// Checks all rules that do not depend on the queue, and finds everything that cannot work.
    ///
    /// The configuration of the command line uses this check, too. It shows `value` and `problem` after its own key.
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        let mut checks = SettingChecks::default();
        let concurrency = limits::in_range("concurrency", self.concurrency, &(1..=MAX_CONCURRENCY), "");
        checks.limit("concurrency", concurrency);
        checks.limit("weight", limits::in_range("weight", self.weight, &(1..=1_000), ""));
        checks.limit("max_messages", self.max_messages.check());
        checks.whole_seconds("poll_wait", self.poll_wait, &self.dialect.poll_wait_secs());
        if let AckWait::Fixed(wait) = self.ack_wait {
            checks.whole_seconds("ack_wait", wait, &self.dialect.ack_wait_secs());
        }
        if let Some(pollers) = self.pollers {
            checks.limit("pollers", limits::in_range("pollers", pollers, &(1..=limits::MAX_POLLERS), ""));
        }
        if self.dialect == Dialect::Mqs {
            self.check_mqs(&mut checks);
        }
        self.check_attempts(&mut checks);
        self.check_pointers(&mut checks);
        self.check_labels(&mut checks);
        self.check_times(&mut checks);
        if let OnFailure::Republish(republish) = &self.on_failure {
            self.check_republish(republish, &mut checks);
        }
        checks.finish()
    }

    /// Refuses what ROMA Connect MQS cannot do, because its messages are bodies and nothing else.
    fn check_mqs(&self, checks: &mut SettingChecks) {
        if !self.filter.is_empty() {
            checks.rule("tags", "ROMA Connect MQS has no labels: leave it out, and filter in the handler");
        }
        if self.dead_letters {
            let problem =
                "ROMA Connect MQS has no dead letters: let on_reject park messages in a topic, and consume that";
            checks.rule("dead_letters", problem);
        }
        if matches!(self.on_failure, OnFailure::Republish(_)) {
            let problem = "needs delays and attributes, which ROMA Connect MQS does not have: use redeliver";
            checks.rule("republish", problem);
        }
        if matches!(self.ordering, Ordering::KeyAttribute(_)) {
            let problem = "ROMA Connect MQS has no attributes: order by a place in the body, such as /customer/id, with by_pointer or \
                           key_pointer";
            checks.rule("ordering", problem);
        }
        if matches!(self.unique_key, Some(UniqueKey::Attribute(_))) {
            let problem =
                "ROMA Connect MQS has no attributes: use unique_pointer with a place in the body, such as /order/id";
            checks.rule("unique_attribute", problem);
        }
        if self.max_attempts.is_some() && self.on_reject == OnReject::Fail {
            let problem = "needs a place for a message after its last attempt, because ROMA Connect MQS has no dead letters: let \
                           on_reject park or discard it";
            checks.rule("max_attempts", problem);
        }
    }

    fn check_attempts(&self, checks: &mut SettingChecks) {
        let Some(attempts) = self.max_attempts else { return };
        checks.at_least_one("max_attempts", attempts);
        if matches!(self.on_failure, OnFailure::Republish(_)) {
            checks.rule("max_attempts", "republish has a max_attempts of its own: leave one of the two out");
        }
    }

    fn check_pointers(&self, checks: &mut SettingChecks) {
        let unique = match &self.unique_key {
            Some(UniqueKey::Pointer(pointer)) => Some(("unique_pointer", pointer)),
            _ => None,
        };
        let key = self.ordering.pointer().map(|pointer| ("ordering", pointer));
        for (setting, pointer) in unique.into_iter().chain(key).filter(|(_, pointer)| !json::is_pointer(pointer)) {
            checks.value(
                setting,
                pointer.clone(),
                "is no JSON pointer into the body: write one such as /order/id".to_owned(),
            );
        }
    }

    fn check_labels(&self, checks: &mut SettingChecks) {
        for (place, label) in self.filter.tags.iter().enumerate() {
            checks.limit(&format!("tags[{place}]"), limits::labels(&[label]));
        }
        let count = self.filter.tags.len();
        if count > MAX_LABELS {
            checks.rule("tags", format!("has {count} labels: at most {MAX_LABELS} are allowed"));
        }
        if self.dead_letters && !self.filter.is_empty() {
            checks.rule("tags", "dead letters have no labels: leave it out");
        }
    }

    /// The handler and the wait for its batch have to fit into the lease, which cannot be extended.
    fn check_times(&self, checks: &mut SettingChecks) {
        let ack_wait = self.lease(None);
        let (timeout, budget) = (self.handler_timeout.unwrap_or_default(), handler_budget(ack_wait));
        let (lease, most) = (duration::text(ack_wait), duration::text(budget));
        if timeout >= budget {
            let problem = format!(
                "is too long for an ack_wait of {lease}: a lease cannot be extended, so keep the timeout below {most} or \
                 raise ack_wait (at most 300s)"
            );
            checks.value("handler_timeout", duration::text(timeout), problem);
        }
        let Some(Batching::Collected(Collect { max_messages, max_bytes, linger })) = self.batching else { return };
        let allowed = limits::in_range("max_messages", max_messages, &(1..=MAX_CONCURRENCY), "");
        checks.limit("collect.max_messages", allowed);
        if (1..max_messages.min(MAX_CONCURRENCY)).contains(&self.concurrency) {
            let problem = format!(
                "is above the concurrency of {}: a message that waits for its batch is in flight, so raise the \
                 concurrency, or collect fewer",
                self.concurrency
            );
            checks.value("collect.max_messages", max_messages.to_string(), problem);
        }
        // The default gives way to the bytes in flight; see `with_defaults`.
        if max_bytes != Collect::default().max_bytes {
            let bytes = limits::in_range("max_bytes", max_bytes, &(1..=self.max_in_flight_bytes), " bytes");
            checks.limit("collect.max_bytes", bytes);
        }
        if timeout < budget && linger.saturating_add(timeout) >= budget {
            let problem = format!(
                "and the timeout of {} are too long for an ack_wait of {lease}: shorten one, or raise ack_wait (at most 300s)",
                duration::text(timeout)
            );
            checks.value("collect.linger", duration::text(linger), problem);
        }
    }

    fn check_republish(&self, republish: &Republish, checks: &mut SettingChecks) {
        let Republish { max_attempts, first_delay, max_delay, .. } = *republish;
        if !self.ordering.is_none() {
            let problem =
                "a message that is sent again goes to the end of the queue, which breaks `ordering`: use redeliver";
            checks.rule("republish", problem);
        }
        checks.at_least_one("republish.max_attempts", max_attempts);
        let first_fits = checks.at_most("republish.first_delay", first_delay, MAX_DELAY);
        checks.at_most("republish.max_delay", max_delay, MAX_DELAY);
        if first_fits && first_delay > max_delay {
            let problem =
                format!("is longer than the longest delay, `{}`: raise that as well", duration::text(max_delay));
            checks.value("republish.first_delay", duration::text(first_delay), problem);
        }
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The names of the settings that are refused.
    fn refused(settings: &Settings) -> Vec<String> {
        settings.check().unwrap_err().all().iter().map(|setting| setting.setting().to_owned()).collect()
    }

    #[test]
    fn all_settings_that_cannot_work_are_named_with_their_values() {
        let settings = Settings {
            concurrency: 0,
            poll_wait: Duration::from_millis(1_500),
            ack_wait: Duration::ZERO.into(),
            filter: TagFilter { tags: vec!["a".to_owned(), "b c".to_owned()], ..TagFilter::default() },
            ..Settings::default()
        };
        let error = settings.check().unwrap_err().to_string();
        for text in [
            "concurrency: `0` is not allowed: 1 to 100000 are allowed",
            "poll_wait: `1s500ms` is not allowed: whole seconds from 1s to 60s",
            "ack_wait: `0s` is not allowed: whole seconds from 15s to 300s",
            "tags[1]: `b c` is not allowed",
        ] {
            assert!(error.contains(text), "{error}");
        }
    }

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
        assert!(error.contains("50") && error.contains("concurrency of 49") && error.contains("raise"), "{error}");
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
            let refused = settings.check().unwrap_err();
            assert_eq!(refused.all().len(), 1, "{refused}");
        }
    }

    #[test]
    fn the_longest_times_are_refused_or_do_no_harm() {
        let max = Duration::MAX;
        let timeout = Settings { handler_timeout: Some(max), ack_wait: AckWait::Auto, ..Settings::default() };
        assert_eq!(refused(&timeout), ["handler_timeout"]);
        let grace = Settings { grace: max, ..Settings::default() };
        assert_eq!(grace.check(), Ok(()));
        let batching = Some(Batching::Collected(Collect { linger: max, ..Collect::default() }));
        let linger = Settings { batching, concurrency: 100, ..Settings::default() };
        assert_eq!(refused(&linger), ["collect.linger"]);
        assert_eq!(AckWait::Auto.lease(None, Some(max)), Duration::from_secs(300));
    }

    #[test]
    fn what_mqs_cannot_do_is_refused_with_the_alternative() {
        let mqs = || Settings { dialect: Dialect::Mqs, ..Settings::default() };
        assert_eq!(mqs().check(), Ok(()));
        let settings = Settings {
            filter: TagFilter { tags: vec!["a".to_owned()], ..TagFilter::default() },
            dead_letters: true,
            on_failure: OnFailure::Republish(crate::worker::Republish::default()),
            unique_key: Some(UniqueKey::Attribute("id".to_owned())),
            max_attempts: Some(3),
            poll_wait: Duration::from_secs(31),
            ack_wait: Duration::ZERO.into(),
            ..mqs()
        };
        let names = refused(&settings);
        for name in ["tags", "dead_letters", "republish", "unique_attribute", "max_attempts", "poll_wait", "ack_wait"] {
            assert!(names.iter().any(|refused| refused == name), "{name} is not in {names:?}");
        }
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("whole seconds from 1s to 300s") && error.contains("park"), "{error}");
        for seconds in [1, 300] {
            let settings =
                Settings { ack_wait: Duration::from_secs(seconds).into(), poll_wait: Duration::from_secs(30), ..mqs() };
            assert_eq!(settings.check(), Ok(()), "{seconds} s");
        }
    }

    #[test]
    fn copies_and_an_order_exclude_each_other() {
        let settings = Settings {
            on_failure: OnFailure::Republish(crate::worker::Republish::default()),
            ordering: Ordering::Batch,
            ..Settings::default()
        };
        assert_eq!(refused(&settings), ["republish"]);
    }
}
