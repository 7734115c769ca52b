//! The kinds of value a configuration is made of, each read from YAML and from an environment variable's text alike.

mod auto;
mod rate;
mod secret;
mod span;

pub(crate) use self::secret::is_secret;
pub use self::{
    auto::{Auto, Choosable},
    rate::{InvalidRate, Rate},
    secret::Secret,
    span::{InvalidSpan, Span},
};

#[cfg(test)]
mod tests;
