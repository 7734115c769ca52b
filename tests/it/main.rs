//! The integration tests: one binary, a module per area.
#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod client_http;
mod script;
#[cfg(feature = "sidecar")]
mod config;
