//! The `shutdown` section: how a process ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::values::Span;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long started handlers may take to finish; 25 s by default.
    pub grace: Span,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: dms_worker::internal::worker_defaults::SHUTDOWN_GRACE.into() }
    }
}
