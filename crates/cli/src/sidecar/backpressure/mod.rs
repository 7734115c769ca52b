//! The reasons to hold a worker back: an operator, an application that is down, and one that requests a pause.

pub(crate) mod app;
pub(crate) mod blame;
pub(crate) mod throttle;
