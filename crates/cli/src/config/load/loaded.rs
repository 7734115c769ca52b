//! [`Loaded`]: a configuration that passed every check, and its settings with their origins, secrets masked.

use std::{fmt, path::PathBuf};

use serde_json::Value;

use crate::config::{
    load::secret_files::SecretFiles,
    schema::config::Config,
    source::{path::KeyPath, problem::Origin, tree::Tree},
};

/// A configuration that passed every check, with the origin of its values.
#[derive(Clone)]
pub struct Loaded {
    /// The settings; secrets from files are filled in.
    pub config: Config,
    pub(super) tree: Tree,
    pub(super) service_links: Vec<String>,
    pub(super) secret_files: SecretFiles,
}

impl fmt::Debug for Loaded {
    /// Without the layers, which have secrets as they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loaded {
    /// Whether a layer sets this key.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.tree.is_set(&KeyPath::dotted(key))
    }

    /// The variables that look like settings and are not: Kubernetes sets them for each Service whose name begins with `dms-worker`.
    pub fn service_links(&self) -> &[String] {
        &self.service_links
    }

    /// The files of secrets that any user of the machine may read, except files that Kubernetes or Docker mounted.
    pub fn exposed_secrets(&self) -> &[PathBuf] {
        &self.secret_files.exposed
    }

    /// The files of secrets that cannot be used, and why; the secrets in force stay. Only where some are in force
    /// ([`Request::in_force`](crate::config::Request::in_force)).
    pub fn kept_secrets(&self) -> &[String] {
        &self.secret_files.kept
    }
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// The key, as in `workers[0].ack_wait`.
    pub key: String,
    /// The value; `***` for a secret, null if it is not set.
    pub value: Value,
    /// Where it was set.
    pub origin: Origin,
}

impl Loaded {
    /// Every setting, in the order of the sections' keys.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        let value = serde_json::to_value(&self.config).unwrap_or_default();
        self.collect(&KeyPath::default(), value, &mut settings);
        settings
    }

    /// Where a value was set; a secret that was read from a file, where the file was named.
    fn origin(&self, path: &KeyPath, value: &Value) -> Origin {
        match (self.tree.origin(path), path.parent(), path.last()) {
            (Origin::Default, Some(parent), Some(key)) if !value.is_null() => {
                let header = parent.parent().map(|http| http.child("header_files").child(key));
                match (parent.last(), header) {
                    (Some("headers"), Some(header)) => self.tree.origin(&header),
                    _ => self.tree.origin(&parent.child(format!("{key}_file"))),
                }
            }
            (origin, ..) => origin,
        }
    }

    fn collect(&self, path: &KeyPath, value: Value, settings: &mut Vec<Setting>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.into_iter().for_each(|(key, value)| self.collect(&path.child(key), value, settings));
            }
            Value::Array(items) if !items.is_empty() => {
                items
                    .into_iter()
                    .enumerate()
                    .for_each(|(place, item)| self.collect(&path.child(place), item, settings));
            }
            value => {
                let origin = self.origin(path, &value);
                settings.push(Setting { key: path.to_string(), value, origin });
            }
        }
    }
}
