//! [`BrokerError`]: why the broker refused or could not do something.

use std::{borrow::Cow, sync::Arc};

use crate::store::StoreError;

/// The cause of a failure that was logged when it began, so that it is not logged for each call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AlreadyLogged(pub(crate) Arc<dyn std::error::Error + Send + Sync>);

impl BrokerError {
    /// Whether the failure was logged.
    pub(crate) fn is_already_logged(&self) -> bool {
        matches!(self, Self::Store(cause) if cause.is::<AlreadyLogged>())
    }
}

/// Why a call failed. HTTP maps each variant to one documented code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The project has no queue with this id.
    #[error("the queue does not exist")]
    QueueNotFound,
    /// The queue has no group with this id.
    #[error("the consumer group does not exist")]
    GroupNotFound,
    /// The data directory could not be copied.
    #[error("no copy was made: {0}")]
    NoBackup(String),
    /// This broker does not implement the operation.
    #[error("this server does not offer {0}")]
    NotOffered(Cow<'static, str>),
    /// The operation is not possible in the present state. The text says why.
    #[error("{0}")]
    NotAvailable(Cow<'static, str>),
    /// The configuration sets this property and takes precedence.
    #[error("the configuration of the server sets {0} of this queue: change it there")]
    Configured(Cow<'static, str>),
    /// No such message is set aside.
    #[error("no damaged message is set aside there")]
    NotDamaged,
    /// The project has a queue with this name.
    #[error("the queue {0} exists already")]
    QueueExists(String),
    /// The queue has a group with this name.
    #[error("the consumer group {0} exists already")]
    GroupExists(String),
    /// The project has the maximum number of queues.
    #[error("the project may have {0} queues")]
    QueueQuota(usize),
    /// The queue has the maximum number of groups.
    #[error("a queue may have {0} consumer groups")]
    GroupQuota(usize),
    /// The queue has the maximum number of resource tags.
    #[error("a queue may have {0} tags")]
    TagQuota(usize),
    /// The queue has no resource tag with this key.
    #[error("the queue has no tag {0}")]
    TagNotFound(String),
    /// The project has the maximum number of deduplication keys.
    #[error(
        "the project has {0} deduplication keys whose window has not ended; send fewer messages with keys, or shorter windows"
    )]
    TooManyKeys(usize),
    /// The queue or group is still being created.
    #[error("it is being created")]
    BeingCreated,
    /// The queue has no dead letters.
    #[error("the queue has no dead letters")]
    NoDeadLetters,
    /// A Kafka queue takes no delayed messages.
    #[error("kafka queue message could not have delayTime.")]
    KafkaDelay,
    /// A Kafka queue has no labels.
    #[error("a Kafka queue has no labels")]
    KafkaLabels,
    /// The group consumes by another label filter.
    #[error("the group consumes by another label rule: {0}")]
    FilterChanged(String),
    /// The receipt cannot be read, its lease is over, or it was acknowledged before. The text names the line.
    #[error("{0}")]
    UnknownReceipt(String),
    /// The receipt belongs to another queue, group or stream. The text names the line.
    #[error("{0}")]
    ForeignReceipt(String),
    /// The message cannot be rejected, because there are no dead letters for it.
    #[error("{0}")]
    NotRejectable(Cow<'static, str>),
    /// The group has the maximum number of waiting consume calls.
    #[error("the group has {0} waiting consume calls")]
    TooManyPolls(usize),
    /// The group, its project or all groups together hold their share of the memory for leased messages, whose size in bytes this is.
    #[error(
        "the group holds its share of the {0} bytes that messages may have which are not acknowledged; acknowledge some first"
    )]
    TooMuchLeased(usize),
    /// The store failed, and nothing was changed. If the process ends before the disk works again, the next start may find a part of the
    /// change that reached the disk.
    #[error("the store failed")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It is unknown whether the change was made, because the broker stopped meanwhile, did not answer, or lost its store. The text is for the log.
    #[error("it is not known whether the change was made: {0}")]
    Unsure(Cow<'static, str>),
    /// Another server may be serving these queues now.
    #[error("this server does not serve the queue at the moment")]
    Unavailable,
    /// This server stands by. The text names the server that serves.
    #[error("this server stands by: {0}")]
    Standby(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.cause().clone())
    }
}
