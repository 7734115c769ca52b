//! Consume Huawei Cloud DMS queues.

pub mod auth;
pub mod client;
mod clock;
#[cfg(feature = "sidecar")]
pub mod config;
pub mod limits;
pub mod message;
pub mod producer;
pub mod queue;
pub mod retry;
pub mod transport;
mod wire;
pub mod worker;

pub use client::{Client, ClientBuilder, Error};
pub use producer::Producer;
pub use wire::ApiVersion;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "sidecar")]
pub mod sidecar;
