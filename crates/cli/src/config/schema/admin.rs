//! The `admin` section: health, metrics and control of `run`.

use std::{net::SocketAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::schema::{dashboard::Dashboard, tls::Tls, values::Secret};

/// Health, metrics and control of a `run` process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where it listens; nowhere by default. Other addresses than loopback need a token.
    pub listen: Option<SocketAddr>,
    /// Further names by which callers may call it while there is no token; none by default.
    pub hosts: Vec<String>,
    /// Its certificate; plain HTTP by default.
    pub tls: Option<Tls>,
    /// The bearer token that `/status`, `/scale` and every POST need; none by default.
    pub token: Option<Secret>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// The bearer token that reads and changes nothing; none by default. It needs `token` beside it.
    pub read_token: Option<Secret>,
    /// A file that holds the read token.
    pub read_token_file: Option<PathBuf>,
    /// Whether the dashboard is served at `/ui/`; true by default.
    pub dashboard: Dashboard,
    /// The path under which a proxy serves the address, such as `/dms`; none by default.
    pub base_path: Option<String>,
    /// The address of a trace in the tracing system, such as `https://jaeger.example/trace/{trace_id}`, to which the dashboard links;
    /// none by default.
    pub trace_url: Option<String>,
}
