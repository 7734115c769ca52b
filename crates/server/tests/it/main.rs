//! The integration tests of the server: one binary, a module per area.
#![allow(clippy::unwrap_used, missing_docs)]

mod broker;
#[path = "../../../../tests/it/clock.rs"]
mod clock;
#[path = "../../../../tests/it/log.rs"]
mod log;
#[path = "../../../../tests/it/pki.rs"]
mod pki;
mod server;
