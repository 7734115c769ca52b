//! The sidecar: workers and publishers from a configuration, for applications in any language.
//!
//! # How it hangs together
//!
//! [`Sidecar::start`] turns a [`Config`](crate::config::Config) into a client (`connect`), an embedded server where one is
//! asked for (`embed`), workers whose handlers are in `deliver`, publishers and the admin endpoint. [`Sidecar::run`] runs
//! them and ends them in order. `app` watches the application behind an HTTP handler; `throttle` is where everything that
//! pauses a worker meets. `line` is the JSON that a message is written as outside.

mod admin;
pub(crate) mod assemble;
mod backpressure;
#[cfg(feature = "dashboard")]
mod dashboard;
pub(crate) mod deliver;
mod error;
mod observe;
mod publisher;
pub(crate) mod reload;
mod run;
mod start;

#[cfg(feature = "dashboard")]
pub(crate) use self::observe::configuration::ConfigurationSources;
pub use self::{
    error::SidecarError,
    observe::configuration::ConfigurationState,
    reload::controls::Controls,
    run::{EndedWorker, SidecarReport},
    start::{Sidecar, check},
};
