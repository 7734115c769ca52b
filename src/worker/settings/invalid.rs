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
        /// The configured timeout.
        timeout: Duration,
        /// The configured lease.
        ack_wait: Duration,
        /// The longest time that a handler can run.
        budget: Duration,
    },
    /// The queue, the group or the handler was not set.
    #[error("the worker has no {0}: set it with WorkerBuilder::{0}")]
    Missing(&'static str),
    /// Collecting batches needs a batch handler.
    #[error(
        "batching is set, but the handler takes one message at a time: set WorkerBuilder::batch_handler instead of handler"
    )]
    BatchingOfSingles,
    /// Layers handle single deliveries.
    #[error(
        "a layer was put around a batch handler, but layers handle one message at a time: set WorkerBuilder::handler instead of batch_handler"
    )]
    LayerOnBatchHandler,
    /// A collected batch would never be complete.
    #[error(
        "max_messages of a collected batch is {max_messages}, but the concurrency is {concurrency}: a message that waits for \
         its batch is in flight, so raise the concurrency to {max_messages} at least, or collect fewer"
    )]
    CollectAboveConcurrency {
        /// The configured size of a batch.
        max_messages: usize,
        /// The configured concurrency.
        concurrency: usize,
    },
    /// Waiting for a batch would use up the lease.
    #[error(
        "a collected batch lingers for {linger:?}, which with a handler_timeout of {timeout:?} is more than the {budget:?} that \
         a lease of {ack_wait:?} leaves: leases cannot be extended, so raise ack_wait (at most 300 s) or shorten one of the two"
    )]
    LingerAboveLease {
        /// The configured linger.
        linger: Duration,
        /// The configured handler timeout, or zero.
        timeout: Duration,
        /// The configured lease.
        ack_wait: Duration,
        /// The longest time that a message can be in flight.
        budget: Duration,
    },
    /// Dead letters have no labels to filter by.
    #[error("a dead-letter worker cannot filter by labels: dead letters carry none")]
    LabelsOfDeadLetters,
    /// A message whose attempts are used up would be redelivered endlessly.
    #[error(
        "on_failure republish ends with `then: fail`, but queue {queue} has no dead letters, so a message would be redelivered \
         endlessly after its last attempt: create the queue with max_consume_count, or let `then` park or discard it"
    )]
    NoDeadLettersForExhausted {
        /// The queue's name.
        queue: String,
    },
    /// The mode of the queue does not support delayed copies.
    #[error("on_failure republish needs delays and no order, which a {0} queue does not have: use redeliver")]
    RepublishUnsupported(QueueMode),
    /// Copies would break the configured order.
    #[error(
        "on_failure republish sends a copy to the end of the queue, which breaks the configured ordering: use redeliver"
    )]
    RepublishBreaksOrder,
}
