//! What requests and answers are made of, whatever they are about.

pub mod bearer;
pub mod body;
pub(crate) mod codes;
pub(crate) mod error;
pub mod host_check;
pub(crate) mod json;
pub(crate) mod operation;
pub(crate) mod path;
pub(crate) mod query;
