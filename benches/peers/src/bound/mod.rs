//! The bound of the machine: HTTP, JSON and one log with group commit, on both sides without anything that can be left out. There are no
//! leases, no identity, no retention, no metrics and one queue, so nobody could use it; it says what the features of dms-worker cost.

pub mod client;
mod log;
pub mod server;
