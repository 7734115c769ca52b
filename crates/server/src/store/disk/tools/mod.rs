//! Tools for a data directory: `backup` copies it, `check` looks at it without changing it, `repair` gives up damaged commits on
//! request, and `rebuild` makes a new index from the log.

pub mod backup;
pub mod check;
pub mod error;
pub mod rebuild;
pub mod repair;
pub(crate) mod shadow;
