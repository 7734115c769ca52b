//! Consume Huawei Cloud DMS queues: a worker runtime, a producer, a typed client, and a durable server of the same API.
//!
//! DMS is an HTTP message service with consumer groups, long polls, *ordered* batch acknowledgement, leases that cannot be
//! extended, dead letters per group, label filters and delayed messages. The hosted service was withdrawn in 2022: today these
//! clients talk to this crate's [`server`] (`dms-worker serve`), or to a private installation.
//!
//! # Where to begin
//!
//! * Implement a [`Handler`](worker::Handler) and run a [`Worker`]: `examples/quickstart.rs`.
//! * Send with a [`Producer`], or with the [`Client`] itself, which has every operation of the API (V2 and V1.0).
//! * Embed a [`Server`](server::Server), in memory or on disk: `examples/embedded_server.rs`.
//!
//! # Layout
//!
//! Imports run up this list, never down.
//!
//! | module | what it holds |
//! |---|---|
//! | `attributes`, [`message`], [`queue`], [`trace_context`] | the nouns: messages, bodies, queues, groups, traces; plain values |
//! | [`limits`] | the service's limits and their checks, one set for client and server |
//! | [`retry`] | how long to wait before trying again; the only file that names the `backoff` crate |
//! | `retry_after` | how long an answer asks to wait, bounded |
//! | `text` | text files that people hand in: byte order marks, other encodings |
//! | `secret_url` | URLs that may hold secrets, and are shown without them |
//! | `spans` | what the spans of producers and workers have in common |
//! | `clock` | the only place of the library that reads the wall clock |
//! | [`transport`] | one HTTP exchange: over sockets (with the sidecar's `target` and `probe` and the exporter of traces the only files that name reqwest), or into a router in this process |
//! | [`auth`] | AK/SK signatures and IAM tokens, put on requests; signatures checked |
//! | `wire` | the JSON of requests and answers, and what differs between V2 and V1.0 |
//! | [`client`] | [`Client`]: every operation, typed, checked, repeated where that is safe |
//! | [`producer`] | [`Producer`]: messages gathered into requests |
//! | [`worker`] | [`Worker`]: polls, handlers, deadlines, the ordered acknowledgement |
//! | [`runtime`] | [`Runtime`](runtime::Runtime): several workers and producers, one shutdown, shared limits |
//! | `exposition` | metrics as an answer to a scraper |
//! | [`layers`] | `tower` layers around a handler that know of leases: retry, timeout, rate limit, circuit breaker, deduplication, chaos |
//! | [`redrive`] | dead letters and parked messages sent again |
//! | [`server`] | the server: HTTP over a [`Broker`](server::broker::Broker), and the embedded broker with its stores |
//! | [`config`], [`sidecar`] | workers and publishers from a configuration file |
//! | [`cli`] | the `dms-worker` command |
//!
//! What is *not* there: `server` imports neither `client` nor `worker`; `worker` and `producer` know no HTTP; `ledger`, `pace`,
//! `lease` and `batcher` do no I/O; nothing in the library measures time with another clock than
//! tokio's, except that the broker's `heartbeat` asks the system's too whether the process ran.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `server` | the embedded server | yes |
//! | `sidecar` | configuration files, the sidecar | yes |
//! | `cli` | the `dms-worker` binary | yes |
//! | `otel` | traces of the binary to an OpenTelemetry collector | yes |
//!
//! `default-features = false` leaves the client, the worker and the producer.

mod attributes;
pub mod auth;
pub mod client;
mod clock;
#[cfg(feature = "sidecar")]
pub mod config;
mod contain;
mod json;
mod later;
pub mod layers;
pub mod limits;
pub mod message;
mod private;
pub mod producer;
pub mod queue;
pub mod redrive;
pub mod retry;
mod retry_after;
pub mod runtime;
mod secret_url;
mod spans;
mod text;
pub mod trace_context;
pub mod transport;
mod visible;
mod wire;
pub mod worker;

pub use client::{Client, ClientBuilder, Error};
pub use producer::Producer;
pub use wire::ApiVersion;
pub use worker::Worker;

#[cfg(feature = "server")]
mod current;
#[cfg(feature = "server")]
mod exposition;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod testing;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "sidecar")]
pub mod sidecar;
