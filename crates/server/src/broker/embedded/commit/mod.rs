//! How a change is committed.

pub(crate) mod apply;
pub(crate) mod committer;
pub(crate) mod prepare;
