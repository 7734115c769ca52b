//! The integration tests of the command: one binary, a module per area.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(target_os = "linux")]
mod backlog;
mod browsers;
#[cfg(unix)]
mod cli;
#[path = "../../../../tests/it/clock.rs"]
mod clock;
#[cfg(all(feature = "postgres", target_os = "linux"))]
mod cluster;
mod config;
#[cfg(unix)]
mod descriptors;
mod examples;
#[cfg(all(feature = "postgres", target_os = "linux"))]
mod failover;
#[cfg(unix)]
mod guide;
mod imports;
mod kill;
mod listeners;
mod observability;
#[allow(dead_code, reason = "the other packages use more of it")]
#[path = "../../../../tests/it/pki.rs"]
mod pki;
#[cfg(unix)]
mod sidecar;
#[cfg(unix)]
mod unchanged;
