//! How long a queue keeps its messages, and what a purge has deleted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is said about how long one queue keeps its messages; what is `None` is as the server says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// How long, from sending or from the end of the delay, consumed or not.
    pub retention: Option<Duration>,
    /// Whether messages go as soon as every group of the queue has settled them. Groups that are created later do not get those.
    pub delete_when_settled: Option<bool>,
}

/// What a purge has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages, those that were leased among them.
    pub messages: u64,
    /// Messages that were not due.
    pub delayed: u64,
}
