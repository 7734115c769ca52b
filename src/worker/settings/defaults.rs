//! Defaults that depend on other settings, so that no default makes a valid setting invalid. Pure.

use std::time::Duration;

use crate::{
    limits::{ACK_WAIT_SECS, MAX_CONCURRENCY},
    wire::Dialect,
    worker::{
        failure::policy::{OnFailure, OnReject, Republish},
        handler::batch::{Batching, Collect},
        settings::{Settings, values::AckWait},
        settlement::lease::handler_budget,
    },
};

/// The default of `concurrency`, unless batches are collected.
pub const CONCURRENCY: usize = 32;
/// The default of `weight`.
pub const WEIGHT: u32 = 1;
/// The default of `max_in_flight_bytes`.
pub const MAX_IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;
/// The default of `poll_wait`.
pub const POLL_WAIT: Duration = Duration::from_secs(20);
/// The default of `ack_wait`, unless the handler timeout or the linger needs more.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// The default of `max_attempts` over ROMA Connect MQS, where `on_reject` parks messages.
pub const MAX_ATTEMPTS: u32 = 5;
/// The default of `shutdown_grace`.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// Settings whose defaults depend on others; `None` if not set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExplicitSettings {
    pub(crate) concurrency: Option<usize>,
    pub(crate) ack_wait: Option<AckWait>,
}

impl Settings {
    /// Applies the explicit settings, and adapts the defaults of the others to them. In option structs such as
    /// [`Collect`], a value that equals the default counts as not set.
    pub(crate) fn with_defaults(mut self, chosen: ExplicitSettings) -> Self {
        self.ack_wait = chosen.ack_wait.unwrap_or_else(|| AckWait::Fixed(self.usual_lease()));
        if let Some(concurrency) = chosen.concurrency {
            self.concurrency = concurrency;
        }
        if let Some(Batching::Collected(collect)) = self.batching {
            // Enough to collect one batch while another is handled.
            let wanted = collect.max_messages.saturating_mul(2).min(MAX_CONCURRENCY);
            self.concurrency = chosen.concurrency.unwrap_or(self.concurrency.max(wanted));
            self.batching = Some(Batching::Collected(self.fitting(collect)));
        }
        match &mut self.on_failure {
            OnFailure::Republish(republish) => follow_delays(republish),
            OnFailure::Redeliver => self.max_attempts = self.max_attempts.or(self.usual_attempts()),
        }
        self
    }

    /// ROMA Connect MQS redelivers without end, so a message that can be parked is parked some time.
    fn usual_attempts(&self) -> Option<u32> {
        let parks = self.dialect == Dialect::Mqs && matches!(self.on_reject, OnReject::Park(_));
        parks.then_some(MAX_ATTEMPTS)
    }

    /// 30 s, or more if the handler timeout and the linger need it.
    fn usual_lease(&self) -> Duration {
        let usual = ACK_WAIT;
        if self.handler_timeout.unwrap_or_default().saturating_add(self.linger()) < handler_budget(usual) {
            return usual;
        }
        let needed = Self { ack_wait: AckWait::Auto, ..self.clone() }.lease(None);
        needed.clamp(usual, Duration::from_secs(*ACK_WAIT_SECS.end()))
    }

    /// The limits of a collected batch. Defaults are reduced to what the other settings allow.
    fn fitting(&self, collect: Collect) -> Collect {
        let default = Collect::default();
        let budget = handler_budget(self.lease(None).max(Duration::from_secs(*ACK_WAIT_SECS.start())));
        let left = budget.saturating_sub(self.handler_timeout.unwrap_or_default());
        let within = |value: usize, default: usize, most: usize| if value == default { value.min(most) } else { value };
        Collect {
            max_messages: within(collect.max_messages, default.max_messages, self.concurrency.max(1)),
            max_bytes: within(collect.max_bytes, default.max_bytes, self.max_in_flight_bytes.max(1)),
            linger: if collect.linger == default.linger { collect.linger.min(left / 2) } else { collect.linger },
        }
    }
}

/// If one of the first and the longest delay is a default, it gives way to the other.
fn follow_delays(republish: &mut Republish) {
    let default = Republish::default();
    if republish.first_delay == default.first_delay {
        republish.first_delay = republish.first_delay.min(republish.max_delay);
    } else if republish.max_delay == default.max_delay {
        republish.max_delay = republish.max_delay.max(republish.first_delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn collected(collect: Collect) -> Settings {
        Settings { batching: Some(Batching::Collected(collect)), ..Settings::default() }
    }

    /// Each setting alone, at its minimum and its maximum.
    #[test]
    fn a_setting_that_is_valid_by_itself_is_accepted_by_itself() {
        let usual = Settings::default;
        let timeout = |timeout| Settings { handler_timeout: Some(timeout), ..usual() };
        let republish = |first_delay, max_delay| Settings {
            on_failure: OnFailure::Republish(Republish { first_delay, max_delay, ..Republish::default() }),
            ..usual()
        };
        let lone = Republish::default();
        let least = Collect { max_messages: 1, max_bytes: 1, linger: Duration::ZERO };
        let settings = [
            timeout(Duration::from_millis(1)),
            timeout(secs(29)),
            timeout(secs(298)),
            collected(Collect::default()),
            collected(least),
            collected(Collect { max_messages: 100_000, ..Collect::default() }),
            collected(Collect { linger: secs(298), ..Collect::default() }),
            Settings { handler_timeout: Some(secs(28)), ..collected(Collect::default()) },
            Settings { handler_timeout: Some(secs(298)), ..collected(Collect::default()) },
            Settings { max_in_flight_bytes: 524_288, ..collected(Collect::default()) },
            republish(secs(2 * 3600), lone.max_delay),
            republish(lone.first_delay, Duration::ZERO),
        ];
        for settings in settings {
            let followed = settings.clone().with_defaults(ExplicitSettings::default());
            assert_eq!(followed.check(), Ok(()), "{settings:?} became {followed:?}");
        }
        for chosen in [
            ExplicitSettings { concurrency: Some(1), ..ExplicitSettings::default() },
            ExplicitSettings { concurrency: Some(100_000), ..ExplicitSettings::default() },
            ExplicitSettings { ack_wait: Some(secs(15).into()), ..ExplicitSettings::default() },
            ExplicitSettings { ack_wait: Some(secs(300).into()), ..ExplicitSettings::default() },
            ExplicitSettings { ack_wait: Some(AckWait::Auto), ..ExplicitSettings::default() },
        ] {
            let followed = collected(Collect::default()).with_defaults(chosen);
            assert_eq!(followed.check(), Ok(()), "{chosen:?} became {followed:?}");
        }
    }

    #[test]
    fn explicit_settings_are_never_changed() {
        let set = Settings {
            handler_timeout: Some(secs(40)),
            ..collected(Collect { max_messages: 50, ..Collect::default() })
        };
        let chosen = ExplicitSettings { concurrency: Some(20), ack_wait: Some(secs(30).into()) };
        let followed = set.with_defaults(chosen);
        assert_eq!((followed.concurrency, followed.ack_wait), (20, secs(30).into()));
        assert!(matches!(followed.batching, Some(Batching::Collected(Collect { max_messages: 50, .. }))));
        assert!(followed.check().is_err(), "a contradiction of two that are set is refused");
    }

    #[test]
    fn attempts_over_mqs_are_limited_if_the_message_can_be_parked() {
        let attempts = |dialect, on_reject, max_attempts| {
            let settings = Settings { dialect, on_reject, max_attempts, ..Settings::default() };
            settings.with_defaults(ExplicitSettings::default()).max_attempts
        };
        let park = || OnReject::Park("parked".to_owned());
        assert_eq!(attempts(Dialect::Mqs, park(), None), Some(5));
        assert_eq!(attempts(Dialect::Mqs, park(), Some(9)), Some(9));
        assert_eq!(attempts(Dialect::Mqs, OnReject::Fail, None), None);
        // An outage must not discard messages.
        assert_eq!(attempts(Dialect::Mqs, OnReject::Discard, None), None);
        assert_eq!(attempts(Dialect::Dms, park(), None), None);
    }

    #[test]
    fn the_usual_values_stay_where_they_fit() {
        let followed = Settings::default().with_defaults(ExplicitSettings::default());
        assert_eq!((followed.concurrency, followed.ack_wait), (32, secs(30).into()));
    }
}
