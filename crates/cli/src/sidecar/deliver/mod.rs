//! Delivery of a message: to an application over HTTP, to a program, or to the log.

pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod program;
mod verdict;
