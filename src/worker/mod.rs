//! The worker runtime: implement a [`Handler`], and it consumes a queue.
//!
//! # How it flows
//!
//! `poller` takes room from the `gate`, polls the `source`, and hands what came to a `batch` with its `lease`. The batch `run`s
//! its messages, each through the [`Handler`] and the `failure` policy (`call` calls it, for one message or for the
//! several that met in a `collector`), writes their verdicts into its `ledger`, and when that
//! says so the `acker` sends the batch's one acknowledgement. `isolation` keeps a failure from hurting its neighbours, `pace` and
//! `batch_size` say how many polls go out and for how much, `lanes` keep an order where one was asked for. `run_registry` see to it that
//! a message is run once at a time, and the `explainer` says why one came again.
//!
//! # What holds
//!
//! * A message whose handler did not succeed is never acknowledged as a success.
//! * There is exactly one acknowledgement per consumed batch, in the order of consumption, up to the first message that is
//!   not done: when the batch is complete, at its first failure once all before it are done, or when its time is over.
//! * Nothing is fetched that cannot start at once.
//! * A handler is stopped early enough for the acknowledgement of what is finished to arrive. Leases cannot be extended.
//! * A panic, a body that cannot be decoded, and a handler that hangs stay with their message.
//!
//! Delivery is at least once: a message can come again after its handler succeeded (a lost acknowledgement, a failure in
//! front of it in its batch), so handlers should be idempotent.

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
        Handler, HandlerFn, TypedHandlerFn,
        batch::{BatchHandler, BatchHandlerFn, Batching, Collect, batch_handler_fn},
        delivery::{Delivery, Origin},
        delivery_builder::DeliveryBuilder,
        error::{FailureKind, HandlerError},
        handler_fn,
        outcome::HandlerOutcome,
        service::{DeliveryService, HandlerFuture, HandlerService, ServiceHandler},
        typed_handler_fn,
    },
    lifecycle::Worker,
    limit::{fair_share::Sharing, inflight::ConcurrencyCap},
    metrics::WorkerMetrics,
    observe::{
        event::{AckResult, Event, MessageAck, Observer},
        latency::Quantiles,
        report::WorkerReport,
    },
    settings::{
        invalid::InvalidSettings,
        ordering::{KeyFn, Ordering},
        values::{AckWait, MaxMessages, OnStuck},
    },
};
pub(crate) use self::{fetch::rate_limit::TokenBucket, limit::shared::SharedLimit};
pub use crate::spans::{MESSAGING_SYSTEM, SPANS};
