//! [`InvalidSettings`]: settings that cannot work, each with its value and the remedy.

use std::time::Duration;

use crate::{limits::LimitError, queue::QueueMode};

/// A setting that cannot work, or two that cannot work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// A value outside the service's limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The handler's timeout does not leave time to acknowledge.
    #[error(
        "handler_timeout is {timeout:?}, but a lease of {ack_wait:?} leaves a handler {budget:?}: \
         leases cannot be extended, so raise ack_wait (at most 300 s) or lower the timeout"
    )]
    TimeoutAboveLease {
        /// The timeout that was set.
        timeout: Duration,
        /// The lease that was set.
        ack_wait: Duration,
        /// The longest a handler can run.
        budget: Duration,
    },
    /// The queue, the group or the handler was not set.
    #[error("the worker has no {0}: set it with WorkerBuilder::{0}")]
    Missing(&'static str),
    /// Messages are to be collected for a handler that takes one at a time.
    #[error(
        "batching is set, but the handler takes one message at a time: set WorkerBuilder::batch_handler instead of handler"
    )]
    BatchingOfSingles,
    /// Layers know single deliveries.
    #[error(
        "a layer was put around a batch handler, but layers handle one message at a time: set WorkerBuilder::handler instead of batch_handler"
    )]
    LayerOfBatches,
    /// A batch that is collected would never be complete.
    #[error(
        "max_messages of a collected batch is {max_messages}, but the concurrency is {concurrency}: a message that waits for \
         its batch is in flight, so raise the concurrency to {max_messages} at least, or collect fewer"
    )]
    CollectAboveConcurrency {
        /// The size of a batch that was set.
        max_messages: usize,
        /// The concurrency that was set.
        concurrency: usize,
    },
    /// Waiting for a batch would use up the lease.
    #[error(
        "a collected batch lingers for {linger:?}, which with a handler_timeout of {timeout:?} is more than the {budget:?} that \
         a lease of {ack_wait:?} leaves: leases cannot be extended, so raise ack_wait (at most 300 s) or shorten one of the two"
    )]
    LingerAboveLease {
        /// The linger that was set.
        linger: Duration,
        /// The handler's timeout that was set, or zero.
        timeout: Duration,
        /// The lease that was set.
        ack_wait: Duration,
        /// The longest that a message can be in flight.
        budget: Duration,
    },
    /// Dead letters have no labels to filter by.
    #[error("a dead-letter worker cannot filter by labels: dead letters carry none")]
    LabelsOfDeadLetters,
    /// A message whose attempts are used up would be handled again and again.
    #[error(
        "on_failure republish ends with `then: fail`, but queue {queue} has no dead letters, so that a message would be redelivered \
         for ever after its last attempt: create the queue with max_consume_count, or let `then` park or discard it"
    )]
    NoDeadLettersForExhausted {
        /// The queue's name.
        queue: String,
    },
    /// The queue's mode has no delayed copies.
    #[error("on_failure republish needs delays and no order, which a {0} queue does not have: use redeliver")]
    RepublishUnsupported(QueueMode),
    /// Copies would break the order that was asked for.
    #[error(
        "on_failure republish sends a copy to the end of the queue, which breaks the ordering that was asked for: use redeliver"
    )]
    RepublishBreaksOrder,
}
