//! [`BrokerError`]: why the broker refused or could not do something.

use std::sync::Arc;

use crate::store::StoreError;

/// The cause of a failure that the log has told of, and is not to tell of for each call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AlreadyLogged(pub(crate) Arc<dyn std::error::Error + Send + Sync>);

impl BrokerError {
    /// Whether the log has told of it.
    pub(crate) fn is_already_logged(&self) -> bool {
        matches!(self, Self::Store(cause) if cause.is::<AlreadyLogged>())
    }
}

/// Why a broker refused or could not do something. HTTP maps each kind to one documented code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No queue of that id in the project.
    #[error("the queue does not exist")]
    QueueNotFound,
    /// No group of that id in the queue.
    #[error("the consumer group does not exist")]
    GroupNotFound,
    /// The data directory could not be copied.
    #[error("no copy was made: {0}")]
    NoBackup(String),
    /// This broker cannot do that.
    #[error("this server does not offer {0}")]
    NotOffered(&'static str),
    /// The configuration says it, and wins.
    #[error("the configuration of the server sets {0} of this queue: change it there")]
    Configured(&'static str),
    /// No message that was set aside is there.
    #[error("no damaged message is set aside there")]
    NotDamaged,
    /// The project has a queue of that name.
    #[error("the queue {0} exists already")]
    QueueExists(String),
    /// The queue has a group of that name.
    #[error("the consumer group {0} exists already")]
    GroupExists(String),
    /// The project has as many queues as it may.
    #[error("the project may have {0} queues")]
    QueueQuota(usize),
    /// The queue has as many groups as it may.
    #[error("a queue may have {0} consumer groups")]
    GroupQuota(usize),
    /// The queue has as many resource tags as it may.
    #[error("a queue may have {0} tags")]
    TagQuota(usize),
    /// The queue has no resource tag of that key.
    #[error("the queue has no tag {0}")]
    TagNotFound(String),
    /// The queue or group was created a moment ago.
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
    /// The group consumes by another label rule.
    #[error("the group consumes by another label rule: {0}")]
    FilterChanged(String),
    /// The token cannot be read, its lease is over, or it was acknowledged before: says which line's it is.
    #[error("{0}")]
    UnknownReceipt(String),
    /// The token belongs to another queue, group or stream: says which line's it is.
    #[error("{0}")]
    ForeignReceipt(String),
    /// A message can only be rejected where there are dead letters for it.
    #[error("{0}")]
    NotRejectable(&'static str),
    /// The group has as many long polls as it may.
    #[error("the group has {0} waiting consume calls")]
    TooManyPolls(usize),
    /// Consumers of the group, or all together, hold as much as they may of so many bytes without acknowledging it.
    #[error(
        "the group holds its share of the {0} bytes that messages may have which are not acknowledged; acknowledge some first"
    )]
    TooMuchLeased(usize),
    /// The store could not do it. What was to be changed is as it was, unless the process ends before the disk works again: what
    /// reached the disk may be found there by the next start.
    #[error("the store failed")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Another server may be serving these queues now.
    #[error("this server does not serve the queue at the moment")]
    Unavailable,
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

impl From<StoreError> for BrokerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.cause().clone())
    }
}
