//! What a key or a user of the server may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rights by the names of queues, in which `*` stands for any part. A right that is left out is one that is not given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rights {
    /// Queues that messages may be sent to; none by default.
    pub send: Vec<String>,
    /// Queues whose messages and dead letters may be consumed and acknowledged; none by default.
    pub consume: Vec<String>,
    /// Queues that may be created, deleted and changed, with their groups and tags; none by default.
    pub manage: Vec<String>,
}
