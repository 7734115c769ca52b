//! What the admin endpoint shows of a worker that runs.

mod rate_window;
pub(crate) mod recorder;
