//! Layers around a handler that respect its lease: [`Timeout`], [`Retry`], [`RateLimit`], [`CircuitBreaker`],
//! [`Deduplicate`], and [`Chaos`] for tests.
//!
//! They are `tower` layers, for [`WorkerBuilder::layer`](crate::worker::WorkerBuilder::layer) and for any
//! [`DeliveryService`](crate::worker::DeliveryService), and can be combined with `tower`'s own layers. They wait on
//! tokio's clock and within the lease, which cannot be extended, so no layer starts a call that it cannot finish. The
//! layer that is added last is the outermost and sees a delivery first.
//!
//! ```no_run
//! use std::time::Duration;
//! use dms_worker::{Client, Handler, RetryPolicy, Worker, layers::{Retry, Timeout}};
//!
//! fn worker(client: Client, handler: impl Handler) -> Result<Worker, Box<dyn std::error::Error>> {
//!     let builder = Worker::builder(client).queue("orders").group("billing").handler(handler);
//!     Ok(builder
//!         .layer(Timeout::new(Duration::from_secs(2))) // of each try
//!         .layer(Retry::new(RetryPolicy::default()))
//!         .build()?)
//! }
//! ```
//!
//! Write a layer of your own with [`Around`], which has one method.

mod around;
mod chaos;
mod circuit;
mod circuit_breaker;
mod deduplicate;
mod memory_store;
#[cfg(feature = "postgres")]
mod postgres_store;
mod rate_limit;
#[cfg(feature = "redis")]
mod redis_store;
mod retry;
mod timeout;

#[cfg(feature = "postgres")]
pub use self::postgres_store::PostgresStore;
#[cfg(feature = "redis")]
pub use self::redis_store::{InvalidRedisUrl, RedisStore};
pub use self::{
    around::{Around, AroundLayer, AroundService},
    chaos::Chaos,
    circuit::CircuitState,
    circuit_breaker::{CircuitBreaker, CircuitStates},
    deduplicate::{Claim, Deduplicate, KeyStore, Token},
    memory_store::MemoryStore,
    rate_limit::RateLimit,
    retry::Retry,
    timeout::Timeout,
};
