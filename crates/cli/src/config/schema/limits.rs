//! The `limits` section: limits shared by all workers of the process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits shared by all workers, in addition to their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Messages in flight in all workers, at least one for each; no limit by default.
    pub in_flight: Option<usize>,
    /// Bytes of bodies in flight in all workers, at least 524 288 for each; no limit by default.
    pub bytes: Option<usize>,
    /// How they are divided when they do not suffice; `weighted` by default.
    pub sharing: Sharing,
}

/// How limits are divided when they do not suffice for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// In proportion to the weights of the workers that want something. The default.
    #[default]
    Weighted,
    /// The worker with the largest weight first; the others keep one message each.
    Strict,
}
