//! The `reload` section: when the configuration is read again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When the configuration is read again while the process runs. SIGHUP always reads it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reload {
    /// Whether the configuration file, the files with secrets and the certificates are watched, and changes are applied within
    /// a few seconds; true by default. Files with secrets of the server's keys and users are always watched.
    pub watch: bool,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true }
    }
}
