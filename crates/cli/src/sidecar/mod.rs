//! The sidecar: workers and publishers from a configuration, for applications in any language.
//!
//! # How it hangs together
//!
//! [`Sidecar::start`] turns a [`Config`](crate::config::Config) into a client (`connect`), an embedded server where one is
//! asked for (`embed`), workers whose handlers are in `deliver`, publishers and the admin endpoint. [`Sidecar::run`] runs
//! them and ends them in order. `app` watches the application behind an HTTP handler; `throttle` is where everything that
//! pauses a worker meets. `line` is the JSON that a message is written as outside.

mod admin;
mod app;
mod blame;
pub(crate) mod children;
pub(crate) mod connect;
mod controls;
mod deliver;
pub(crate) mod embed;
mod error;
pub(crate) mod line;
mod listen;
mod log_control;
pub(crate) mod object;
mod observe;
pub(crate) mod probe;
mod publisher;
mod run;
mod secrets;
mod settings;
mod start;
mod throttle;
mod window;

pub(crate) use self::settings::idle_worker;
pub use self::{
    controls::Controls,
    error::SidecarError,
    run::{Ended, WorkerEnd},
    start::{Sidecar, check},
};
