//! Workers and publishers from a configuration, for applications in any language.

pub(crate) mod connect;
pub(crate) mod embed;
pub(crate) mod probe;
