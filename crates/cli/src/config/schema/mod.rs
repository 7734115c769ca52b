//! What a configuration file may say: one type per section, with its keys, defaults and docs.

pub(crate) mod admin;
pub(crate) mod config;
pub(crate) mod dashboard;
pub(crate) mod deduplicate;
pub(crate) mod dms;
pub(crate) mod handler;
pub(crate) mod json_schema;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod publisher;
pub(crate) mod reload;
pub(crate) mod rights;
pub(crate) mod schedule;
pub(crate) mod server;
pub(crate) mod server_admin;
pub(crate) mod shutdown;
pub(crate) mod tls;
pub(crate) mod values;
pub(crate) mod worker;
pub(crate) mod worker_failure;
