//! The operations of the broker.

pub(crate) mod ack;
mod admin_ops;
pub(crate) mod append;
pub(crate) mod consume;
mod damaged;
pub(crate) mod peek;
mod purge;
mod retention;
