//! The `log` section: format and filter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The log on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` by default: text on a terminal, else JSON.
    pub format: LogFormat,
    /// A level, or directives like `info,dms_worker=debug`; `info` by default. `RUST_LOG` wins.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: "info".to_owned() }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON. The default.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}
