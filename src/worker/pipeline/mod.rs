//! The running worker, in the order in which a message passes through it: poller, batch, tasks, process, call, ack.

pub(crate) mod ack;
pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod drain;
pub(crate) mod inline;
pub(crate) mod poll_permit;
pub(crate) mod poller;
pub(crate) mod process;
pub(crate) mod tasks;
