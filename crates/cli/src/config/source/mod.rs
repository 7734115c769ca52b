//! Where settings come from: a YAML file, variables and flags, merged into one tree that knows the origin of each value.

pub(crate) mod environment;
pub(crate) mod interpolate;
pub(crate) mod layer;
mod locate;
pub(crate) mod path;
pub(crate) mod problem;
pub(crate) mod secret_variables;
pub(crate) mod tree;
mod yaml;
