//! Tools for a data directory that no server uses.

pub mod backup;
pub mod check;
pub mod error;
pub mod rebuild;
pub mod repair;
mod shadow;
