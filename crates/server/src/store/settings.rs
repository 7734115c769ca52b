//! Values of the broker that a store keeps as they are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The retention of one queue, as set while the server runs. A field that is `None` follows the configuration of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPolicy {
    /// Time from sending, or from the end of the delay, until a message is deleted, consumed or not.
    pub retention: Option<Duration>,
    /// Whether a message is deleted as soon as every group of the queue has settled it. Groups that are created later do not get
    /// such messages.
    pub delete_when_settled: Option<bool>,
}

/// A change of a [`RetentionPolicy`]. `None` leaves a field as it is, and `Some(None)` lets it follow the configuration again. The
/// default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// The new [`RetentionPolicy::retention`].
    pub retention: Option<Option<Duration>>,
    /// The new [`RetentionPolicy::delete_when_settled`].
    pub delete_when_settled: Option<Option<bool>>,
}

impl RetentionChange {
    /// The policy after the change.
    pub(crate) fn apply(self, policy: RetentionPolicy) -> RetentionPolicy {
        RetentionPolicy {
            retention: self.retention.unwrap_or(policy.retention),
            delete_when_settled: self.delete_when_settled.unwrap_or(policy.delete_when_settled),
        }
    }
}

/// A change of a queue, made as a whole or not at all. `None` leaves a property as it is, and the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueChange {
    /// The new description; empty for none.
    pub description: Option<String>,
    /// The new number of failures that make a message a dead letter, 1-100. `Some(None)` switches dead letters off, which is refused
    /// while a group has some.
    pub max_consume_count: Option<Option<u32>>,
    /// How long the queue keeps its messages.
    pub retention: RetentionChange,
}

impl From<RetentionChange> for QueueChange {
    /// Changes nothing else.
    fn from(retention: RetentionChange) -> Self {
        Self { retention, ..Self::default() }
    }
}

impl From<RetentionPolicy> for RetentionChange {
    /// Sets the whole policy.
    fn from(policy: RetentionPolicy) -> Self {
        Self { retention: Some(policy.retention), delete_when_settled: Some(policy.delete_when_settled) }
    }
}

/// Why a message failed or was rejected, as far as its consumer reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureCause {
    /// One word: 1-64 of `a-z 0-9 _ -`.
    pub reason: Option<String>,
    /// The error's text, at most 1,024 bytes.
    pub error: Option<String>,
    /// The consumer's name, at most 128 bytes.
    pub worker: Option<String>,
    /// When the message failed first, in milliseconds since the Unix epoch.
    pub first_failure_ms: Option<i64>,
    /// When it failed last, in milliseconds since the Unix epoch.
    pub last_failure_ms: Option<i64>,
}

/// One lease of a message that ended without settling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the lease began, in milliseconds since the Unix epoch. `None` if it began on another server of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: i64,
    /// How it ended.
    pub end: AttemptEnd,
}

/// How a lease ended for a message that it did not settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptEnd {
    /// The consumer reported a failure.
    Failed,
    /// Nobody acknowledged the message in time.
    LeaseExpired,
    /// An earlier message of the batch failed, and that counts (`failure_counting: batch`).
    BatchFailed,
    /// It was handed back, or an earlier message of the batch failed. No failure was counted.
    Released,
}

impl AttemptEnd {
    /// `failed`, `lease_expired`, `batch_failed` or `released`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::LeaseExpired => "lease_expired",
            Self::BatchFailed => "batch_failed",
            Self::Released => "released",
        }
    }
}
