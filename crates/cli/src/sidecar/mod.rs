//! The sidecar: workers and publishers from a configuration, for applications in any language.
//!
//! Imports run from the top of this table to its bottom.
//!
//! | module | contents |
//! |---|---|
//! | `run` | runs everything, and ends it in order |
//! | `start` | [`Sidecar::start`]: everything of a [`Config`](crate::config::Config), so that errors appear before the first message |
//! | `dashboard`, `admin` | pages for a browser; probes, metrics, status and control |
//! | `reload` | another configuration for a running sidecar |
//! | `assemble` | from the configuration to a client, workers, publishers, outboxes and listeners |
//! | `running` | the workers, publishers and outboxes that run now |
//! | `publisher` | the requests to a publisher |
//! | `deliver` | the handlers: HTTP, programs, the log |
//! | `backpressure` | the application behind a handler, and everything that pauses a worker |
//! | `observe` | what the workers did, for the pages and the status |

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
mod running;
mod start;

#[cfg(feature = "dashboard")]
pub(crate) use self::observe::configuration::ConfigurationSources;
pub use self::{
    error::SidecarError,
    observe::configuration::ConfigurationState,
    reload::controls::Controls,
    run::SidecarReport,
    running::parts::EndedWorker,
    start::{Sidecar, check},
};
