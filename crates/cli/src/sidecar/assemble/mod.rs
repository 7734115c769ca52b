//! From the configuration to a client, an embedded server, worker settings and listeners.

pub(crate) mod connect;
pub(crate) mod deduplicate;
pub(crate) mod listener;
pub(crate) mod outbox;
pub(crate) mod publisher;
pub(crate) mod runtime;
pub(crate) mod unit;
