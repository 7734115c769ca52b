//! Consume Huawei Cloud DMS queues.

pub mod auth;
pub mod limits;
pub mod message;
pub mod queue;

#[cfg(feature = "server")]
pub mod server;
