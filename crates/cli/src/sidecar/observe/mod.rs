//! The activity of workers and the state of the configuration, for the admin endpoint.

pub(crate) mod configuration;
mod rate_window;
pub(crate) mod recorder;
