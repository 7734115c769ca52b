//! [`ExhaustedMessages`]: messages whose attempts are used up, on a service that has no way to reject a message. If
//! such a message is redelivered, it fails again without being handled, until it is a dead letter.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    message::{FailureReport, ReceivedMessage},
    ttl_map::TtlMap,
    worker::{attributes::LAST_FAILURE, dedup::identity::Identity},
};

/// The number of messages to remember, each with the text of its error.
const CAPACITY: usize = 1_000;
/// How long a message is remembered.
const EXHAUSTED_TTL: Duration = Duration::from_secs(3600);

/// The messages of a worker whose attempts are used up.
#[derive(Debug)]
pub(crate) struct ExhaustedMessages(Mutex<TtlMap<Identity, FailureReport>>);

impl ExhaustedMessages {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(TtlMap::new(CAPACITY)))
    }

    /// Records that the last attempt of a message has failed, with the reason.
    pub(crate) fn record(&self, message: &ReceivedMessage, report: &FailureReport) {
        if let Some(identity) = identity(message) {
            self.lock().insert(identity, report.clone(), EXHAUSTED_TTL);
        }
    }

    /// Why the last attempt of a message failed, if it has had its last attempt.
    pub(crate) fn recall(&self, message: &ReceivedMessage) -> Option<FailureReport> {
        let exhausted_messages = self.lock();
        // The table is nearly always empty, and then nothing has to be hashed.
        if exhausted_messages.is_empty() {
            return None;
        }
        exhausted_messages.get(&identity(message)?).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, TtlMap<Identity, FailureReport>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity of a message: its place, or for a copy its content, which includes the time of its last failure. A
/// unique attribute would not do, because a dead letter that is sent again keeps it.
fn identity(message: &ReceivedMessage) -> Option<Identity> {
    let copy = || {
        let mut hasher = DefaultHasher::new();
        message.body.as_str().hash(&mut hasher);
        for (name, value) in message.attributes.iter() {
            (name, value.get()).hash(&mut hasher);
        }
        Identity::Unique(format!("copy {:016x}", hasher.finish()))
    };
    Identity::of(message, None).or_else(|| message.attributes.contains(LAST_FAILURE).then(copy))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::message::{Attributes, Body};

    fn message(failed: &str, handle: &str) -> ReceivedMessage {
        let attributes = Attributes::from_iter([(LAST_FAILURE, failed)]);
        ReceivedMessage::new(Body::json(&1).unwrap(), attributes, Vec::new(), handle)
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_without_a_place_is_known_by_its_content() {
        let exhausted_messages = ExhaustedMessages::new();
        let report = FailureReport { error: "no".to_owned(), ..FailureReport::default() };
        exhausted_messages.record(&message("10:00", "first"), &report);
        assert_eq!(exhausted_messages.recall(&message("10:00", "again")), Some(report));
        assert_eq!(exhausted_messages.recall(&message("10:01", "other")), None);
        let mut plain = message("", "plain");
        plain.attributes = Attributes::default();
        exhausted_messages.record(&plain, &FailureReport::default());
        assert_eq!(exhausted_messages.recall(&plain), None, "equal messages are not one message");
    }
}
