//! Changes while a sidecar runs: limits, secrets, certificates, the log filter.

pub(crate) mod controls;
pub(crate) mod log_control;
pub(crate) mod secrets;
