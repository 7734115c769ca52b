//! The integration tests: one binary, a module per area.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(all(target_os = "linux", feature = "cli"))]
mod backlog;
#[cfg(feature = "server")]
mod broker;
#[cfg(feature = "sidecar")]
mod browsers;
#[cfg(all(unix, feature = "cli"))]
mod cli;
mod client;
mod client_documents;
mod client_extensions;
mod client_http;
#[cfg(feature = "server")]
mod client_server;
mod clock;
#[cfg(feature = "sidecar")]
mod config;
#[cfg(all(unix, feature = "cli"))]
mod descriptors;
#[cfg(feature = "cli")]
mod examples;
#[cfg(feature = "cli")]
mod kill;
#[cfg(feature = "server")]
mod layers;
mod listeners;
#[cfg(feature = "server")]
mod log;
mod longest_durations;
mod observability;
mod producer;
mod redelivery;
#[cfg(feature = "server")]
mod redrive;
#[cfg(feature = "server")]
mod retry_after;
#[cfg(feature = "server")]
mod runtime;
mod script;
#[cfg(feature = "server")]
mod server;
#[cfg(all(unix, feature = "sidecar"))]
mod sidecar;
#[cfg(feature = "server")]
mod simulation;
#[cfg(feature = "server")]
mod testing;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
mod trace;
#[cfg(all(unix, feature = "cli"))]
mod unchanged;
#[cfg(feature = "server")]
mod worker;
