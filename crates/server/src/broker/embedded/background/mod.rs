//! Tasks that run beside the calls.

pub(crate) mod heartbeat;
pub(crate) mod maintenance;
pub(crate) mod timer;
