//! Tasks that run beside the calls.

mod delays;
pub(crate) mod heartbeat;
pub(crate) mod maintenance;
mod retention;
pub(crate) mod timer;
