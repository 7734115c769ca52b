//! Workers, producers and a typed client for Huawei Cloud DMS queues.
//!
//! DMS is an HTTP message queue with consumer groups, long polls, ordered batch acknowledgement, leases that cannot be extended, dead
//! letters per group, label filters and delayed messages. The hosted service was withdrawn in 2022. Run the server of this
//! project instead ([`dms-server`](https://docs.rs/dms-server), the command `dms-worker serve`), or use a private
//! installation.
//!
//! ```no_run
//! use dms_worker::{Client, Delivery, HandlerError, Message, Worker, handler_fn};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     id: u64,
//!     cents: u64,
//! }
//!
//! async fn charge(delivery: Delivery) -> Result<(), HandlerError> {
//!     let order: Order = delivery.json()?; // a body that is not an order is rejected, not retried without end
//!     println!("order {} costs {} cents", order.id, order.cents);
//!     Ok(()) // any other error means "failed": the message is redelivered
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
//!     let queue = client.find_queue("orders").await?.id;
//!     client.send(&queue, &[Message::json(&Order { id: 7, cents: 250 })?]).await?;
//!
//!     let report = Worker::builder(client)
//!         .queue("orders")
//!         .group("billing")
//!         .handler(handler_fn(charge))
//!         .concurrency(64)
//!         .build()?
//!         .run(async { drop(tokio::signal::ctrl_c().await) }) // then drains
//!         .await?;
//!     println!("{} messages handled", report.done);
//!     Ok(())
//! }
//! ```
//!
//! # Start here
//!
//! | task | type | example |
//! |---|---|---|
//! | consume a queue | [`Worker`] with a [`Handler`] | `examples/quickstart.rs` |
//! | take arguments by type, as axum does | [`handler_fn`] with [`Json`], [`State`], ... | `examples/handler_arguments.rs` |
//! | consume in batches | [`Worker`] with a [`BatchHandler`] | `examples/batch_handler.rs` |
//! | send many messages | [`Producer`] | `examples/producer_batching.rs` |
//! | run several workers in one process | [`Runtime`] | `examples/many_queues.rs` |
//! | retry, limit or deduplicate within a lease | [`layers`] | `examples/tower_layers.rs` |
//! | send and handle messages in database transactions | `postgres::Outbox`, `postgres::Inbox` | `examples/inbox_outbox.rs` |
//! | send dead letters again | [`Redrive`] | `examples/dead_letter_reprocessing.rs` |
//! | call a single operation of the API | [`Client`] | `examples/embedded_server.rs` |
//! | test a handler | `testing::TestServer` (feature `testing`) | the module's documentation |
//!
//! # Modules
//!
//! Imports go up this list only.
//!
//! | module | content |
//! |---|---|
//! | [`message`], [`queue`], [`limits`], [`trace_context`] | values and limits of the API, from the package `dms-protocol` |
//! | [`retry`] | delays between tries |
//! | [`transport`] | one HTTP exchange, over sockets or with a service in the same process |
//! | [`auth`] | AK/SK signatures and IAM tokens |
//! | `wire` | the JSON of requests and answers, and the differences between V2 and V1.0 |
//! | [`client`] | every operation of the API, typed, checked, and repeated where that is safe |
//! | [`producer`] | messages collected into requests |
//! | [`worker`] | polls, handlers, deadlines, and the ordered acknowledgement |
//! | [`runtime`] | several workers and producers with one shutdown |
//! | `postgres` | inbox and outbox in the application's PostgreSQL |
//! | [`layers`] | `tower` layers around a handler |
//! | [`redrive`] | dead letters and parked messages sent again |
//! | `testing` | a server in memory, for tests of handlers |
//!
//! The modules `worker` and `producer` send no HTTP themselves, and all durations are measured with tokio's clock, so tests can pause it.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `postgres` | the module `postgres` with inbox and outbox, and `layers::PostgresStore`: deduplication across processes | no |
//! | `redis` | `layers::RedisStore`: deduplication across processes with Redis | no |
//! | `testing` | the module `testing` | no |

pub mod auth;
pub mod client;
mod contain;
mod later;
pub mod layers;
#[cfg(feature = "postgres")]
pub mod postgres;
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
        client::permissions::{may_consume, may_send},
        later::after,
        redrive::copies::{as_redriven, is_exhausted, without_unsupported},
        retry_after::RetryAfter,
        transport::{
            certificate_error::in_words as certificate_in_words,
            http_client::certificates,
            pool::{NoExchange, Pool, PoolLimits},
            tls::UnusableAuthorities,
        },
        ttl_map::TtlMap,
        worker::internal::{
            ACK_MARGIN, LeasedBatch, check_settings, consume_leased, defaults as worker_defaults, unwrap_parked,
        },
    };
}

#[cfg(feature = "postgres")]
use dms_protocol::internal::{postgres_settings, postgres_tls};
use dms_protocol::{
    internal::{clock, current, json, private, secret_url, suggest, text, visible},
    secret,
};
pub use dms_protocol::{limits, message, message_places, queue, trace_context};

pub use client::{Client, ClientBuilder, ConsumeOptions, Error, ErrorCode, SendOptions};
pub use message::{Attributes, Message, MessageId};
pub use producer::{Producer, ProducerBuilder, ProducerMetrics, SendError};
pub use queue::{NewQueue, ProjectId, Queue, QueueId};
pub use redrive::Redrive;
pub use retry::RetryPolicy;
pub use runtime::{Runtime, RuntimeBuilder, RuntimeHandle, RuntimeReport};
pub use wire::{ApiVersion, Content, ContentDecoding, ContentEncoding, Dialect};
pub use worker::{
    BatchHandler, Delivery, Handler, HandlerError, Worker, WorkerBuilder, WorkerError, WorkerHandle, WorkerMetrics,
    WorkerReport, batch_handler_fn,
    extract::{FromDelivery, Json, State},
    handler_fn, typed_handler_fn,
};
