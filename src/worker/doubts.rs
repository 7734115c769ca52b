//! Settings that will work but are likely not meant: what to say of them. Pure.

use std::time::Duration;

use super::{
    lease::handler_budget,
    settings::{AckWait, MaxMessages, Ordering, Settings},
};
use crate::limits::{MAX_BYTES, MAX_MESSAGES};

impl Settings {
    /// What is doubtful, with the remedy; nothing where all is well.
    pub(crate) fn doubts(&self) -> Vec<String> {
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

    /// Handlers one after the other share one lease.
    fn batch_in_turn(&self) -> Option<String> {
        let (Ordering::Batch, Some(timeout)) = (&self.ordering, self.handler_timeout) else { return None };
        let messages = match self.max_messages {
            MaxMessages::Fixed(messages) => messages,
            MaxMessages::Auto => return None,
        };
        let budget = handler_budget(self.ack_wait.lease(self.handler_timeout, None));
        let fit = usize::try_from(budget.as_nanos() / timeout.as_nanos().max(1)).unwrap_or(MAX_MESSAGES);
        (messages > fit).then(|| {
            format!(
                "ordering batch handles {messages} messages one after the other within {budget:?}, which is enough for {fit} of \
                 handler_timeout {timeout:?}: lower max_messages to {fit}, or raise ack_wait"
            )
        })
    }

    /// A shutdown stops handlers that would have been in time.
    fn cut_short(&self) -> Option<String> {
        let (timeout, grace) = (self.handler_timeout?, self.grace);
        (grace < timeout).then(|| {
            format!(
                "shutdown_grace is {grace:?} and handler_timeout {timeout:?}: a shutdown stops handlers that would have been in \
                 time; raise the grace period, and give the process as long to end"
            )
        })
    }

    /// No handler outlives its lease, so a longer grace period is never used.
    fn long_grace(&self) -> Option<String> {
        let AckWait::Fixed(ack_wait) = self.ack_wait else { return None };
        let grace = self.grace;
        (grace > ack_wait).then(|| {
            format!("shutdown_grace is {grace:?}, but every handler ends with its lease after {ack_wait:?}: a longer one is never used")
        })
    }

    /// Polls count as their largest answer.
    fn few_bytes(&self) -> Option<String> {
        let bytes = self.max_in_flight_bytes;
        (bytes < 2 * MAX_BYTES).then(|| {
            format!(
                "max_in_flight_bytes is {bytes}, and a poll counts as {MAX_BYTES} until it is answered: there is never more than \
                 one poll, and none while anything is in flight; allow several times that"
            )
        })
    }

    /// A poll asks for no more than there is room for.
    fn small_batches(&self) -> Option<String> {
        let (MaxMessages::Fixed(messages), concurrency) = (self.max_messages, self.concurrency) else { return None };
        (messages > concurrency).then(|| {
            format!("max_messages is {messages}, but concurrency {concurrency} never leaves room for so many: raise concurrency")
        })
    }

    /// An idle queue answers each of these requests with nothing.
    fn idle_polls(&self) -> Option<String> {
        const SHORT: Duration = Duration::from_secs(3);
        let wait = self.poll_wait;
        (wait < SHORT)
            .then(|| format!("poll_wait is {wait:?}: an idle queue is asked that often; 20 s cost no latency"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_defaults_raise_no_doubt() {
        assert_eq!(Settings::default().doubts(), [""; 0]);
    }

    #[test]
    fn each_doubt_names_its_setting_and_its_value() {
        let usual = Settings::default;
        let batch = Settings { ordering: Ordering::Batch, max_messages: MaxMessages::Fixed(10), ..usual() };
        let doubtful = [
            (Settings { handler_timeout: Some(SECOND * 10), ..batch }, "lower max_messages to 2"),
            (Settings { handler_timeout: Some(SECOND * 20), grace: SECOND * 5, ..usual() }, "shutdown_grace is 5s and"),
            (Settings { grace: SECOND * 40, ..usual() }, "ends with its lease after 30s"),
            (Settings { max_in_flight_bytes: 1_000, ..usual() }, "max_in_flight_bytes is 1000"),
            (Settings { max_messages: MaxMessages::Fixed(10), concurrency: 4, ..usual() }, "concurrency 4 never"),
            (Settings { poll_wait: SECOND, ..usual() }, "poll_wait is 1s"),
        ];
        for (settings, text) in doubtful {
            let doubts = settings.doubts();
            assert!(doubts.len() == 1 && doubts.iter().all(|doubt| doubt.contains(text)), "{text}: {doubts:?}");
            assert_eq!(settings.check(), Ok(()), "doubtful is not wrong");
        }
    }
}
