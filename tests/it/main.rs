//! The integration tests of the library: one binary, a module per area.
#![allow(clippy::unwrap_used, missing_docs)]

mod client;
mod client_documents;
mod client_extensions;
mod client_server;
mod clock;
mod deduplication;
mod handler_arguments;
mod key_stores;
mod layers;
mod log;
mod longest_durations;
mod outbox;
mod pki;
mod producer;
mod redelivery;
mod redrive;
mod retry_after;
mod runtime;
mod runtime_changes;
mod script;
mod simulation;
mod testing;
mod tls;
mod trace;
mod worker;
