//! TLS of a listener.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The certificate of a listener, read again on SIGHUP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct Tls {
    /// A PEM file with the certificate, followed by the intermediate ones; required.
    pub certificate: PathBuf,
    /// A PEM file with its private key, without a passphrase; required.
    pub key: PathBuf,
}
