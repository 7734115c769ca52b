//! The worker: implement a [`Handler`], and a [`Worker`] consumes a queue with it.
//!
//! # How a message passes through
//!
//! ```text
//!             +--------------------------- pipeline ----------------------------+
//!             |                                                                 |
//!  service -->| poll_permit --> poller --> batch --> tasks --> process --> call |--> Handler
//!             |      ^                      |  ^                  |             |
//!             |   limits,            Lease, |  |  verdict         |             |
//!             |   rate, pause,       Ledger |  +------------------+             |
//!             |   isolation                 v          failure policy           |
//!  service <--|---------------------------- ack                                 |
//!             +-----------------------------------------------------------------+
//! ```
//!
//! | module | task |
//! |---|---|
//! | `builder`, `settings` | the options of a worker, their defaults, checks and warnings |
//! | `lifecycle`, `setup`, `targets`, `session` | [`Worker`]: looks up its queue and group, runs, drains; finds a queue that was created again |
//! | `handle`, `control` | [`WorkerHandle`]: pause, resume, limits, stop, status |
//! | `pipeline` | the tasks of a running worker, and the context they share |
//! | `fetch` | the service as a source, the polls in flight, their number and size, the rate limit |
//! | `limit` | the limits of messages in flight, of one worker and of several |
//! | `isolation` | fetches messages one at a time after a failure, so that it harms no neighbour |
//! | `settlement` | pure: the time budget of a batch, and the prefix that can be acknowledged |
//! | `dispatch` | order by key, and the messages of one call of a [`BatchHandler`] |
//! | `dedup` | one run of a message at a time, no repetition of finished work, reasons of redeliveries |
//! | `failure` | the policies: redeliver, republish, park, reject, discard |
//! | `handler` | what users implement and receive: [`Handler`], [`BatchHandler`], [`Delivery`], [`HandlerError`] |
//! | `observe`, `metrics` | events, counts, spans, durations, Prometheus metrics |
//!
//! # Guarantees
//!
//! * A message whose handler did not succeed is never acknowledged as a success.
//! * Each consumed batch gets exactly one acknowledgement that counts, in the order of consumption, up to the first message that is not done. It is
//!   sent when the batch is complete, at its first failure once all messages before it are done, or when its time is over.
//! * No message is fetched without capacity for it. Within an ordered batch, messages start in turn.
//! * Handlers are stopped early enough for the acknowledgement of finished messages to arrive. Leases cannot be extended.
//! * A panic, a body that cannot be decoded, and a handler that hangs affect their own message only.
//!
//! Delivery is at least once. A message can be redelivered after its handler succeeded, because its acknowledgement was lost or a message
//! before it in its batch failed. So handlers should be idempotent.

pub mod attributes;
mod builder;
mod control;
mod dedup;
mod dispatch;
mod error;
mod failure;
mod fetch;
mod handle;
mod handler;
mod isolation;
mod lifecycle;
mod limit;
mod metrics;
mod observe;
mod pipeline;
mod session;
mod settings;
mod settlement;
mod setup;
mod targets;
#[cfg(test)]
mod tests;

pub use self::{
    builder::WorkerBuilder,
    dedup::redelivery::Redelivery,
    error::WorkerError,
    failure::policy::{OnFailure, OnReject, OnUndecodable, Republish},
    fetch::rate_limit::Rate,
    handle::{Status, WorkerHandle},
    handler::{
        Handler, TypedHandlerFn,
        batch::{BatchHandler, BatchHandlerFn, Batching, Collect, batch_handler_fn},
        delivery::{Delivery, Origin},
        delivery_builder::DeliveryBuilder,
        error::{FailureKind, HandlerError},
        extract,
        function::{HandlerFn, handler_fn},
        outcome::HandlerOutcome,
        service::{DeliveryService, HandlerFuture, HandlerService, ServiceHandler},
        typed_handler_fn,
    },
    isolation::Isolated,
    lifecycle::Worker,
    limit::{fair_share::Sharing, inflight::ConcurrencyCap},
    metrics::WorkerMetrics,
    observe::{
        event::{AckResult, Event, MessageAck, Observer},
        latency::Quantiles,
        report::WorkerReport,
    },
    settings::{
        ordering::{KeyFn, Ordering},
        values::{AckWait, MaxMessages, OnStuck},
    },
};
/// What the command line shares with the worker.
pub(crate) mod internal {
    pub use super::{
        builder::check_settings,
        failure::wrapped::unwrap_parts as unwrap_parked,
        fetch::leased::{LeasedBatch, consume_leased},
        settings::defaults,
        settlement::lease::MIN_MARGIN as ACK_MARGIN,
    };
}
pub(crate) use self::{
    failure::wrapped, fetch::rate_limit::TokenBucket, handler::needed::needs_attribute, limit::shared::SharedLimit,
};
pub use crate::spans::{MESSAGING_SYSTEM, SPANS};
pub use dms_protocol::settings::{InvalidSetting, InvalidSettings};
