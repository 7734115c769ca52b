//! The activity of a worker, for the admin endpoint.

mod rate_window;
pub(crate) mod recorder;
