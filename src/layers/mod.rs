//! Layers around a handler that know of leases: [`Timeout`], [`Retry`], [`RateLimit`], [`CircuitBreaker`], [`Deduplicate`], and
//! [`Chaos`] for tests.
//!
//! They are `tower` layers, for [`WorkerBuilder::layer`](crate::worker::WorkerBuilder::layer) and for any
//! [`DeliveryService`](crate::worker::DeliveryService); `tower`'s own layers go with them. All waiting is on tokio's clock and within the lease, which cannot be
//! extended: no layer begins what it cannot finish. The layer that is added last is the outermost: it sees a delivery first.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use dms_worker::{client::Client, layers::{Retry, Timeout}, retry::RetryPolicy, worker::{Worker, handler_fn}};
//! # fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let handler = handler_fn(|delivery| async move { Ok(println!("{}", delivery.body().as_str())) });
//! let worker = Worker::builder(client).queue("orders").group("billing").handler(handler)
//!     .layer(Timeout::new(Duration::from_secs(2))) // of each try
//!     .layer(Retry::new(RetryPolicy::default()))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! A layer of your own that does something around a call is one method: [`Around`].

mod around;
mod chaos;
mod circuit;
mod circuit_breaker;
mod deduplicate;
mod memory_store;
mod rate_limit;
mod retry;
mod timeout;

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
