//! The command `dms-worker`: workers and publishers from a configuration file (the sidecar), the DMS server, and a command line
//! for both.
//!
//! It is a library so that its tests, and programs that want the sidecar within them, can use it; most people want the command.
//!
//! | module | content |
//! |---|---|
//! | [`config`] | configuration files: schema, loading, checks |
//! | [`sidecar`] | workers and publishers of a configuration, delivered to an application over HTTP or to programs |
//! | [`cli`] | the commands |

pub mod cli;
pub mod config;
mod message_json;
pub mod sidecar;
