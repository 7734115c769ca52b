//! [`MessageRecords`]: everything that a worker remembers of single messages.

use std::time::Duration;

use crate::{
    message::ReceivedMessage,
    worker::dedup::{
        identity::{Identity, UniqueKey},
        in_progress::RunRegistry,
        passed_on::PassedOn,
        redelivery::{Redelivery, RedeliveryLog},
    },
};

/// How long a message is remembered: the longest lease, 300 s, and a minute more, because the message is redelivered by then.
const REDELIVERY_WINDOW: Duration = Duration::from_secs(360);

/// What a worker remembers of single messages.
#[derive(Debug)]
pub(crate) struct MessageRecords {
    /// Runs that are in progress or have succeeded.
    pub(crate) runs: RunRegistry,
    /// Messages that were settled by a copy or by being discarded.
    pub(crate) passed_on: PassedOn,
    redeliveries: RedeliveryLog,
    /// Whether finished work is remembered at all.
    remember_finished: bool,
    /// The part of messages that tells them apart, where the user named one.
    unique_key: Option<UniqueKey>,
}

impl MessageRecords {
    /// Empty records of a worker of this queue.
    pub(crate) fn new(queue: String, remember_finished: bool, unique_key: Option<UniqueKey>) -> Self {
        Self {
            runs: RunRegistry::new(REDELIVERY_WINDOW),
            passed_on: PassedOn::new(REDELIVERY_WINDOW),
            redeliveries: RedeliveryLog::new(queue, REDELIVERY_WINDOW),
            remember_finished,
            unique_key,
        }
    }

    /// What tells a message from others, if anything does.
    pub(crate) fn identity(&self, message: &ReceivedMessage) -> Option<Identity> {
        Identity::of(message, self.unique_key.as_ref())
    }

    /// The same, where finished work is remembered.
    pub(crate) fn dedup_identity(&self, message: &ReceivedMessage) -> Option<Identity> {
        self.remember_finished.then(|| self.identity(message)).flatten()
    }

    /// The same of the messages of a batch.
    pub(crate) fn dedup_identities(&self, messages: &[ReceivedMessage]) -> impl Iterator<Item = Identity> {
        messages.iter().filter_map(|message| self.dedup_identity(message))
    }

    /// Whether copies carry the same identity as the message they were made of.
    pub(crate) fn has_unique_key(&self) -> bool {
        self.unique_key.is_some()
    }

    /// Records why a message is going to be redelivered.
    pub(crate) fn remember_reason(&self, message: &ReceivedMessage, reason: Redelivery) {
        if let Some(identity) = self.identity(message) {
            self.redeliveries.record(identity, reason);
        }
    }

    /// Why a message was redelivered; `None` for a first delivery, as far as is known.
    pub(crate) fn explain(&self, message: &ReceivedMessage) -> Option<Redelivery> {
        self.redeliveries.explain(message, self.identity(message).as_ref())
    }
}
