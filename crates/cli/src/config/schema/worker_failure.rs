//! The key `on_worker_failure`: what the others do when one worker cannot go on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens when a worker cannot go on: its queue, its group or a parking queue is missing, or the service refuses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnWorkerFailure {
    /// The others go on, and it tries again until it can work. The default.
    #[default]
    Continue,
    /// All end in order, and the process with an error.
    Stop,
}
