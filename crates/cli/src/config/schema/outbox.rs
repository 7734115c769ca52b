//! The `outboxes` section: tables of applications whose rows are sent as messages.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{deduplicate::PostgresKeys, values::Span};

/// A table in the PostgreSQL of an application. Each row that a transaction commits to it is sent as a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["postgres"]))]
pub struct Outbox {
    /// The database; required. The table `outbox` is created in its schema.
    pub postgres: PostgresKeys,
    /// How long to wait when the table is empty, above zero; 200 ms by default.
    pub poll_interval: Span,
    /// How long the server recognizes a message that is sent again after a crash, 1s to 7d; 1h by default.
    pub deduplication_window: Span,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            postgres: PostgresKeys::default(),
            poll_interval: Duration::from_millis(200).into(),
            deduplication_window: Duration::from_secs(3600).into(),
        }
    }
}
