//! Tools for a data directory that no server uses.

pub mod backup;
pub mod check;
pub mod rebuild;
pub mod repair;
