//! Consume Huawei Cloud DMS queues: a worker runtime, a producer, and a typed client.
//!
//! DMS is an HTTP message service with consumer groups, long polls, *ordered* batch acknowledgement, leases that cannot be
//! extended, dead letters per group, label filters and delayed messages. The hosted service was withdrawn in 2022: today these
//! clients talk to [`dms-server`](https://docs.rs/dms-server) (`dms-worker serve`), or to a private installation.
//!
//! # Where to begin
//!
//! * Implement a [`Handler`] and run a [`Worker`]: `examples/quickstart.rs`.
//! * Send with a [`Producer`], or with the [`Client`] itself, which has every operation of the API (V2 and V1.0).
//! * Embed a server, in memory or on disk: `examples/embedded_server.rs`.
//!
//! # Packages
//!
//! Each may import those above it, and no other.
//!
//! | package | folder | what it holds |
//! |---|---|---|
//! | `dms-protocol` | `crates/protocol` | what client and server share: queues, messages, limits, JSON, signatures, trace contexts; no I/O |
//! | `dms-server` | `crates/server` | the server: HTTP, callers and their rights, the broker, its stores |
//! | `dms-worker` | the root | this library |
//! | `dms-worker-cli` | `crates/cli` | the command `dms-worker`: configuration, sidecar, command line |
//!
//! Only [`testing`](#features) knows both the workers and the server; it is a feature, so that programs compile no server.
//!
//! # Layout
//!
//! Imports run up this list, never down.
//!
//! | module | what it holds |
//! |---|---|
//! | [`message`], [`queue`], [`limits`], [`trace_context`] | the nouns and the service's limits, from `dms-protocol` |
//! | [`retry`] | how long to wait before trying again; the only file that names the `backoff` crate |
//! | `retry_after` | how long an answer asks to wait, bounded |
//! | `contain`, `later`, `spans` | panics of users' code, times far ahead, spans |
//! | [`transport`] | one HTTP exchange: over sockets, or into a service in this process |
//! | [`auth`] | AK/SK signatures and IAM tokens, put on requests |
//! | `wire` | the JSON of requests and answers, and what differs between V2 and V1.0 |
//! | [`client`] | [`Client`]: every operation, typed, checked, repeated where that is safe |
//! | [`producer`] | [`Producer`]: messages gathered into requests |
//! | [`worker`] | [`Worker`]: polls, handlers, deadlines, the ordered acknowledgement |
//! | [`runtime`] | [`Runtime`]: several workers and producers, one shutdown, shared limits |
//! | [`layers`] | `tower` layers around a handler that know of leases: retry, timeout, rate limit, circuit breaker, deduplication, chaos |
//! | [`redrive`] | dead letters and parked messages sent again |
//! | `testing` | a server in memory for tests of handlers |
//!
//! `worker` and `producer` know no HTTP; `ledger`, `pace`, `lease` and `batcher` do no I/O; nothing in the library measures time
//! with another clock than tokio's.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `testing` | `dms_worker::testing`: a server in memory, in the process of the test | no |

pub mod auth;
pub mod client;
mod contain;
mod later;
pub mod layers;
pub mod producer;
pub mod redrive;
pub mod retry;
mod retry_after;
pub mod runtime;
mod spans;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
mod ttl_map;
mod wire;
pub mod worker;

/// What `dms-worker-cli` uses beyond the public API. It can change in any release.
#[doc(hidden)]
pub mod internal {
    pub use crate::{
        later::after,
        retry_after::RetryAfter,
        transport::http_client::{UnusableAuthorities, certificates},
        ttl_map::TtlMap,
    };
}

use dms_protocol::{clock, current, json, private, secret, secret_url, text, visible};
pub use dms_protocol::{limits, message, queue, trace_context};

pub use client::{Client, ClientBuilder, ConsumeOptions, Error, ErrorCode, SendOptions};
pub use message::{Attributes, Message, MessageId};
pub use producer::{Producer, ProducerBuilder, ProducerMetrics, SendError};
pub use queue::{NewQueue, ProjectId, Queue, QueueId};
pub use redrive::Redrive;
pub use retry::RetryPolicy;
pub use runtime::{Runtime, RuntimeBuilder, RuntimeHandle, RuntimeReport};
pub use wire::ApiVersion;
pub use worker::{
    BatchHandler, Delivery, Handler, HandlerError, Worker, WorkerBuilder, WorkerError, WorkerHandle, WorkerMetrics,
    WorkerReport, batch_handler_fn, handler_fn, typed_handler_fn,
};
