//! Changes while a sidecar runs. [`Controls::apply`](controls::Controls::apply) is the way in.
//!
//! | file | content |
//! |---|---|
//! | `plan` | the parts that another configuration adds, removes and changes; pure |
//! | `prepare` | everything that can fail, before anything changes |
//! | `apply` | stops and starts workers, publishers and outboxes |
//! | `secrets`, `server` | secrets; keys, users and queues of the embedded server |
//! | `log_control` | the log filter, for the admin endpoint |

mod apply;
pub(crate) mod controls;
pub(crate) mod log_control;
mod plan;
mod prepare;
mod secrets;
pub(crate) mod server;
