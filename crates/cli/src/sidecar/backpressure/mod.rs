//! What holds a worker back: an operator, an application that is down, one that asks for a pause.

pub(crate) mod app;
pub(crate) mod blame;
pub(crate) mod throttle;
