//! Code of the long-running commands `run` and `serve`: signals, reloading, and the service manager.

pub(crate) mod file_watch;
pub(crate) mod reload;
pub(crate) mod signals;
pub(crate) mod systemd;
