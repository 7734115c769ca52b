//! How messages are fetched: from which source, with how many polls, for how many messages, at which rate.

pub(crate) mod concurrency;
pub(crate) mod leased;
pub(crate) mod pollers;
pub(crate) mod polling;
pub(crate) mod polls;
pub(crate) mod rate_limit;
pub(crate) mod source;
