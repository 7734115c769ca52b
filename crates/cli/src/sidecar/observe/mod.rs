//! The activity of workers and the state of the configuration, for the admin endpoint.

pub(crate) mod configuration;
#[cfg(feature = "dashboard")]
pub(crate) mod failures;
#[cfg(feature = "dashboard")]
pub(crate) mod in_flight;
#[cfg(feature = "dashboard")]
mod minutes;
mod rate_window;
pub(crate) mod recorder;
#[cfg(feature = "dashboard")]
pub(crate) mod redeliveries;
