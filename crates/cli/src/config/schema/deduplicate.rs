//! The `deduplicate` section of a worker: the key of its messages' work, and where finished keys are kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::values::{Secret, Span};

/// Does the work of each key once: a message whose key another message had before is acknowledged without its handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["key"]))]
pub struct Deduplicate {
    /// What identifies the work: the name of an attribute, or a JSON pointer into the body, such as `/order/id`; required.
    /// Messages without it are always handled.
    pub key: String,
    /// Where keys are kept; `memory` by default, which other processes do not share.
    pub store: KeyStore,
    /// How long the key of finished work is remembered; 1 day by default.
    pub keep: Span,
    /// Separates these keys from the keys of other workers in the same store; `QUEUE/GROUP` by default.
    pub scope: Option<String>,
}

impl Default for Deduplicate {
    fn default() -> Self {
        Self { key: String::new(), store: KeyStore::default(), keep: Span::secs(24 * 3600), scope: None }
    }
}

/// Where the keys of work are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStore {
    /// In this process: the last 100 000 keys. The default.
    #[default]
    Memory,
    /// In a table of PostgreSQL.
    Postgres(PostgresKeys),
    /// In Redis or Valkey.
    Redis(RedisKeys),
}

/// The PostgreSQL that keeps the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresKeys {
    /// Where it is: `postgres://user@host1,host2/database` or `host=host1,host2 user=… dbname=…`; this or `url_file` is required.
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// A file that holds the connection string.
    pub url_file: Option<PathBuf>,
    /// A PEM file with the certificates of the authorities that may have issued PostgreSQL's; nothing is encrypted by default.
    pub ca_file: Option<PathBuf>,
    /// The schema of the table; `dms_worker` by default.
    pub schema: String,
}

impl Default for PostgresKeys {
    fn default() -> Self {
        Self { url: None, url_file: None, ca_file: None, schema: "dms_worker".to_owned() }
    }
}

/// The Redis that keeps the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisKeys {
    /// Where it is: `redis://user:password@host:port/database`, or `rediss://` for TLS; this or `url_file` is required.
    #[schemars(with = "Option<String>")]
    pub url: Option<Secret>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// A PEM file with the certificates of the authorities that may have issued Redis's; the system's authorities by default.
    pub ca_file: Option<PathBuf>,
    /// Begins the names of all keys; `dms_worker:` by default.
    pub prefix: String,
}

impl Default for RedisKeys {
    fn default() -> Self {
        Self { url: None, url_file: None, ca_file: None, prefix: "dms_worker:".to_owned() }
    }
}
