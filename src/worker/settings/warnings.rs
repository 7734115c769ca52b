//! Warnings about settings that work but are probably a mistake, alone or with their queue, with the remedy. Pure.

use std::time::Duration;

use dms_protocol::{internal::setting_checks::SettingChecks, settings::InvalidSettings};

use crate::{
    client::Extensions,
    limits::{MAX_BYTES, MAX_MESSAGES},
    text::brief,
    wire::Dialect,
    worker::{
        failure::policy::{OnFailure, OnReject, OnUndecodable, REMEDY},
        settings::{
            Settings,
            ordering::Ordering,
            values::{AckWait, MaxMessages},
        },
        settlement::lease::handler_budget,
    },
};

impl Settings {
    /// Warnings about the settings alone.
    pub(crate) fn warnings(&self) -> Vec<String> {
        [
            self.batch_in_turn(),
            self.cut_short(),
            self.long_grace(),
            self.few_bytes(),
            self.small_batches(),
            self.idle_polls(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// With ordering by batch, handlers share one lease.
    fn batch_in_turn(&self) -> Option<String> {
        let (Ordering::Batch, Some(timeout)) = (&self.ordering, self.handler_timeout) else { return None };
        let messages = match self.max_messages {
            MaxMessages::Fixed(messages) => messages,
            MaxMessages::Auto => return None,
        };
        let budget = handler_budget(self.lease(None));
        let fit = usize::try_from(budget.as_nanos() / timeout.as_nanos().max(1)).unwrap_or(MAX_MESSAGES);
        let (budget, timeout) = (brief(budget), brief(timeout));
        (messages > fit).then(|| {
            format!(
                "ordering batch handles {messages} messages one after the other within {budget}, which is enough for {fit} of \
                 handler_timeout {timeout}: lower max_messages to {fit}, or raise ack_wait"
            )
        })
    }

    /// A shutdown stops handlers that would have finished in time.
    fn cut_short(&self) -> Option<String> {
        let (timeout, grace) = (self.handler_timeout?, self.grace);
        (grace < timeout).then(|| {
            let (grace, timeout) = (brief(grace), brief(timeout));
            format!(
                "shutdown_grace is {grace} and handler_timeout {timeout}: a shutdown stops handlers that would have been in \
                 time; raise the grace period, and give the process as long to end"
            )
        })
    }

    /// No handler outlives its lease, so a longer grace period has no effect.
    fn long_grace(&self) -> Option<String> {
        let AckWait::Fixed(ack_wait) = self.ack_wait else { return None };
        let grace = self.grace;
        // The default fits every lease.
        (grace > ack_wait && grace > Self::default().grace).then(|| {
            let (grace, ack_wait) = (brief(grace), brief(ack_wait));
            format!("shutdown_grace is {grace}, but every handler ends with its lease after {ack_wait}: a longer one has no effect")
        })
    }

    /// Until they are answered, polls count as their largest reply.
    fn few_bytes(&self) -> Option<String> {
        let bytes = self.max_in_flight_bytes;
        (bytes < 2 * MAX_BYTES).then(|| {
            format!(
                "max_in_flight_bytes is {bytes}, and a poll counts as {MAX_BYTES} until it is answered: there is never more than \
                 one poll, and none while anything is in flight; allow several times that"
            )
        })
    }

    /// A poll asks for no more messages than there is capacity for.
    fn small_batches(&self) -> Option<String> {
        let (MaxMessages::Fixed(messages), concurrency) = (self.max_messages, self.concurrency) else { return None };
        (messages > concurrency).then(|| {
            format!("max_messages is {messages}, but concurrency {concurrency} never leaves capacity for that many: raise concurrency")
        })
    }

    /// On an idle queue, each of these polls returns nothing.
    fn idle_polls(&self) -> Option<String> {
        const SHORT: Duration = Duration::from_secs(3);
        (self.poll_wait < SHORT).then(|| {
            format!("poll_wait is {}: an idle queue is polled that often; 20 s adds no latency", brief(self.poll_wait))
        })
    }
}

/// The facts about a service and a queue that decide where rejected messages go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueFacts<'a> {
    pub(crate) queue: &'a str,
    /// Whether dead letters are enabled, if the service says so.
    pub(crate) dead_letters: Option<bool>,
    pub(crate) max_consume_count: Option<u32>,
    pub(crate) extensions: Extensions,
}

impl Settings {
    /// Whether some rejects are left to the queue.
    fn leaves_rejects(&self) -> bool {
        self.on_reject == OnReject::Fail || self.on_undecodable == OnUndecodable::Own(OnReject::Fail)
    }

    /// Whether messages whose attempts are used up are left to the queue.
    fn leaves_exhausted(&self) -> bool {
        matches!(&self.on_failure, OnFailure::Republish(republish) if republish.then == OnReject::Fail)
    }

    /// Checks the settings against a queue.
    pub(crate) fn check_queue(&self, ground: QueueFacts<'_>) -> Result<(), InvalidSettings> {
        let lasts = !self.dead_letters && ground.dead_letters == Some(false);
        let queue = ground.queue;
        if lasts && self.max_attempts.is_some() && self.on_reject == OnReject::Fail {
            return Err(SettingChecks::one(
                "max_attempts",
                format!(
                    "needs a place for a message after its last attempt, and queue {queue} has no dead letters: create the queue \
                     with max_consume_count, or let on_reject park or discard it"
                ),
            ));
        }
        if lasts && self.leaves_exhausted() {
            return Err(SettingChecks::one(
                "republish",
                format!(
                    "ends with `then: fail`, but queue {queue} has no dead letters, so a message would be redelivered \
                     endlessly after its last attempt: create the queue with max_consume_count, or let `then` park or discard it"
                ),
            ));
        }
        Ok(())
    }

    /// Warnings about rejected messages on a queue.
    pub(crate) fn queue_warnings(&self, ground: QueueFacts<'_>) -> Vec<String> {
        let QueueFacts { queue, dead_letters, max_consume_count, extensions } = ground;
        let settings = match (self.leaves_rejects(), self.leaves_exhausted()) {
            (true, true) => "on_reject fail and republish then fail",
            (true, false) => "on_reject fail",
            (false, true) => "republish then fail",
            (false, false) => return Vec::new(),
        };
        let warning = match dead_letters {
            _ if self.dead_letters => format!(
                "{settings}: a dead letter of queue {queue} that is rejected stays a dead letter and is redelivered, at growing \
                 intervals; set on_reject to park or discard"
            ),
            Some(true) if extensions.reject() => return Vec::new(),
            Some(true) => return self.failing_to_reject(queue, max_consume_count),
            _ if self.dialect == Dialect::Mqs => format!(
                "{settings}: ROMA Connect MQS has no dead letters, so a message of topic {queue} that is rejected or keeps failing is \
                 redelivered again and again, at growing intervals; set on_reject to park or discard"
            ),
            Some(false) => format!(
                "{settings}: queue {queue} has no dead letters, so a rejected message is redelivered again and again, at growing \
                 intervals; {REMEDY}"
            ),
            None => format!(
                "{settings}: the service does not say whether queue {queue} has dead letters; without them a rejected message is \
                 redelivered again and again, at growing intervals: {REMEDY}"
            ),
        };
        vec![warning]
    }

    /// Warnings for a queue with dead letters on a service that has no way to reject a message.
    fn failing_to_reject(&self, queue: &str, max_consume_count: Option<u32>) -> Vec<String> {
        let times =
            max_consume_count.map_or("as often as max_consume_count says".to_owned(), |count| format!("{count} times"));
        let rejected = self.leaves_rejects().then(|| {
            format!(
                "on_reject fail: this service has no way to reject a message, so a rejected message of queue {queue} is handled \
                 {times} before it becomes a dead letter; set on_reject to park or discard to have it handled once"
            )
        });
        let exhausted = self.leaves_exhausted().then(|| {
            format!(
                "republish then fail: this service has no way to reject a message, so a message of queue {queue} whose attempts are \
                 used up is delivered {times} before it becomes a dead letter; the worker that saw its last attempt does not handle \
                 it again, another one does; let `then` park it to have neither"
            )
        });
        rejected.into_iter().chain(exhausted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::failure::policy::Republish;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_raise_no_warning() {
        assert_eq!(Settings::default().warnings(), [""; 0]);
    }

    #[test]
    fn each_warning_names_its_setting_and_its_value() {
        let usual = Settings::default;
        let batch = Settings { ordering: Ordering::Batch, max_messages: MaxMessages::Fixed(10), ..usual() };
        let unlikely = [
            (Settings { handler_timeout: Some(SECOND * 10), ..batch }, "lower max_messages to 2"),
            (Settings { handler_timeout: Some(SECOND * 20), grace: SECOND * 5, ..usual() }, "shutdown_grace is 5s and"),
            (Settings { grace: SECOND * 40, ..usual() }, "ends with its lease after 30s"),
            (Settings { max_in_flight_bytes: 1_000, ..usual() }, "max_in_flight_bytes is 1000"),
            (Settings { max_messages: MaxMessages::Fixed(10), concurrency: 4, ..usual() }, "concurrency 4 never"),
            (Settings { poll_wait: SECOND, ..usual() }, "poll_wait is 1s"),
        ];
        for (settings, text) in unlikely {
            let warnings = settings.warnings();
            assert!(
                warnings.len() == 1 && warnings.iter().all(|warning| warning.contains(text)),
                "{text}: {warnings:?}"
            );
            assert_eq!(settings.check(), Ok(()), "unlikely is not wrong");
        }
    }

    fn ground(dead_letters: Option<bool>, extensions: Extensions) -> QueueFacts<'static> {
        QueueFacts { queue: "orders", dead_letters, max_consume_count: dead_letters.and(Some(3)), extensions }
    }

    #[test]
    fn a_warning_says_where_rejected_messages_go_unless_they_are_dead_letters_at_once() {
        let (all, none) = (Extensions::ALL, Extensions::NONE);
        let settings = Settings::default();
        assert_eq!(settings.queue_warnings(ground(Some(true), all)), [""; 0]);
        let dead_letters = Settings { dead_letters: true, ..Settings::default() };
        let exhausted = Settings {
            on_reject: OnReject::Discard,
            on_failure: OnFailure::Republish(Republish::default()),
            ..Settings::default()
        };
        let cases = [
            (&settings, ground(Some(true), none), ["on_reject fail: this service has no way", "handled 3 times"]),
            (&settings, ground(Some(false), all), ["queue orders has no dead letters", "max_consume_count"]),
            (&settings, ground(None, none), ["does not say whether", "park or discard"]),
            (&dead_letters, ground(Some(true), all), ["stays a dead letter", "park or discard"]),
            (&exhausted, ground(Some(true), none), ["republish then fail: ", "delivered 3 times"]),
        ];
        for (settings, ground, texts) in cases {
            let warnings = settings.queue_warnings(ground);
            let says = |text: &str| warnings.iter().any(|warning| warning.contains(text));
            assert!(warnings.len() == 1 && texts.into_iter().all(says), "{texts:?}: {warnings:?}");
        }
        let discards = Settings { on_reject: OnReject::Discard, ..Settings::default() };
        assert_eq!(discards.queue_warnings(ground(Some(false), none)), [""; 0], "nothing is left to the queue");
    }

    #[test]
    fn used_up_attempts_need_dead_letters_or_another_policy() {
        let then = |then| {
            let on_failure = OnFailure::Republish(Republish { then, ..Republish::default() });
            Settings { on_failure, ..Settings::default() }
        };
        let refused = then(OnReject::Fail).check_queue(ground(Some(false), Extensions::ALL));
        let text = refused.map_err(|error| error.to_string()).expect_err("it would loop");
        assert!(text.contains("orders") && text.contains("park") && text.contains("max_consume_count"), "{text}");
        assert_eq!(then(OnReject::Fail).check_queue(ground(Some(true), Extensions::NONE)), Ok(()));
        assert_eq!(then(OnReject::Discard).check_queue(ground(Some(false), Extensions::NONE)), Ok(()));
        let limited = |on_reject| Settings { max_attempts: Some(3), on_reject, ..Settings::default() };
        let refused = limited(OnReject::Fail).check_queue(ground(Some(false), Extensions::ALL));
        assert!(refused.is_err_and(|error| error.to_string().contains("max_attempts")));
        assert_eq!(limited(OnReject::Fail).check_queue(ground(Some(true), Extensions::NONE)), Ok(()));
        assert_eq!(limited(OnReject::Discard).check_queue(ground(Some(false), Extensions::NONE)), Ok(()));
    }
}
