//! [`Refusal`]: an error of a broker as a value, so that it reaches the caller of another server unchanged.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::broker::{AlreadyLogged, BrokerError};

/// Why a broker refused or failed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    QueueNotFound,
    GroupNotFound,
    NoBackup(String),
    NotOffered(String),
    NotAvailable(String),
    Configured(String),
    NotDamaged,
    QueueExists(String),
    GroupExists(String),
    QueueQuota(usize),
    GroupQuota(usize),
    TagQuota(usize),
    TagNotFound(String),
    BeingCreated,
    NoDeadLetters,
    KafkaDelay,
    KafkaLabels,
    FilterChanged(String),
    UnknownReceipt(String),
    ForeignReceipt(String),
    NotRejectable(String),
    TooManyPolls(usize),
    TooMuchLeased(usize),
    TooManyKeys(usize),
    /// The store failed; the text is for the log.
    Store(String),
    /// It is unknown whether the change was made; the text is for the log.
    Unsure(String),
}

impl Refusal {
    /// The value of an error. `None` where the call was not made, because the shard is not served there.
    pub(super) fn of(error: BrokerError) -> Option<Self> {
        Some(match error {
            BrokerError::QueueNotFound => Self::QueueNotFound,
            BrokerError::GroupNotFound => Self::GroupNotFound,
            BrokerError::NoBackup(text) => Self::NoBackup(text),
            BrokerError::NotOffered(what) => Self::NotOffered(what.into_owned()),
            BrokerError::NotAvailable(why) => Self::NotAvailable(why.into_owned()),
            BrokerError::Configured(what) => Self::Configured(what.into_owned()),
            BrokerError::NotDamaged => Self::NotDamaged,
            BrokerError::QueueExists(name) => Self::QueueExists(name),
            BrokerError::GroupExists(name) => Self::GroupExists(name),
            BrokerError::QueueQuota(limit) => Self::QueueQuota(limit),
            BrokerError::GroupQuota(limit) => Self::GroupQuota(limit),
            BrokerError::TagQuota(limit) => Self::TagQuota(limit),
            BrokerError::TagNotFound(key) => Self::TagNotFound(key),
            BrokerError::BeingCreated => Self::BeingCreated,
            BrokerError::NoDeadLetters => Self::NoDeadLetters,
            BrokerError::KafkaDelay => Self::KafkaDelay,
            BrokerError::KafkaLabels => Self::KafkaLabels,
            BrokerError::FilterChanged(rule) => Self::FilterChanged(rule),
            BrokerError::UnknownReceipt(text) => Self::UnknownReceipt(text),
            BrokerError::ForeignReceipt(text) => Self::ForeignReceipt(text),
            BrokerError::NotRejectable(reason) => Self::NotRejectable(reason.into_owned()),
            BrokerError::TooManyPolls(limit) => Self::TooManyPolls(limit),
            BrokerError::TooMuchLeased(limit) => Self::TooMuchLeased(limit),
            BrokerError::TooManyKeys(limit) => Self::TooManyKeys(limit),
            BrokerError::Store(cause) => Self::Store(cause.to_string()),
            BrokerError::Unsure(why) => Self::Unsure(why.into_owned()),
            BrokerError::Unavailable | BrokerError::Standby(_) | BrokerError::Closed => return None,
        })
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QueueNotFound => Self::QueueNotFound,
            Refusal::GroupNotFound => Self::GroupNotFound,
            Refusal::NoBackup(text) => Self::NoBackup(text),
            Refusal::NotOffered(what) => Self::NotOffered(what.into()),
            Refusal::NotAvailable(why) => Self::NotAvailable(why.into()),
            Refusal::Configured(what) => Self::Configured(what.into()),
            Refusal::NotDamaged => Self::NotDamaged,
            Refusal::QueueExists(name) => Self::QueueExists(name),
            Refusal::GroupExists(name) => Self::GroupExists(name),
            Refusal::QueueQuota(limit) => Self::QueueQuota(limit),
            Refusal::GroupQuota(limit) => Self::GroupQuota(limit),
            Refusal::TagQuota(limit) => Self::TagQuota(limit),
            Refusal::TagNotFound(key) => Self::TagNotFound(key),
            Refusal::BeingCreated => Self::BeingCreated,
            Refusal::NoDeadLetters => Self::NoDeadLetters,
            Refusal::KafkaDelay => Self::KafkaDelay,
            Refusal::KafkaLabels => Self::KafkaLabels,
            Refusal::FilterChanged(rule) => Self::FilterChanged(rule),
            Refusal::UnknownReceipt(text) => Self::UnknownReceipt(text),
            Refusal::ForeignReceipt(text) => Self::ForeignReceipt(text),
            Refusal::NotRejectable(reason) => Self::NotRejectable(reason.into()),
            Refusal::TooManyPolls(limit) => Self::TooManyPolls(limit),
            Refusal::TooMuchLeased(limit) => Self::TooMuchLeased(limit),
            Refusal::TooManyKeys(limit) => Self::TooManyKeys(limit),
            Refusal::Unsure(why) => Self::Unsure(why.into()),
            // The owner has logged it.
            Refusal::Store(text) => Self::Store(Arc::new(AlreadyLogged(Arc::from(Box::from(text))))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server that asked must not take an unknown outcome for "nothing was done", and make the call at the next owner.
    #[test]
    fn an_unknown_outcome_stays_unknown_at_the_server_that_asked() {
        let refusal = Refusal::of(BrokerError::Unsure("it was stopped".into()));
        let text = serde_json::to_string(&refusal).unwrap_or_default();
        let read: Option<Refusal> = serde_json::from_str(&text).unwrap_or_default();
        assert!(matches!(read.map(BrokerError::from), Some(BrokerError::Unsure(why)) if why == "it was stopped"));
        assert!(Refusal::of(BrokerError::Closed).is_none(), "nothing was done");
    }
}
