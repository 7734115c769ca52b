//! The effective settings with their origins, secrets masked.

use serde_json::Value;

use super::{load::Loaded, path::KeyPath, problem::Origin};

/// One effective setting.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// The key, as in `workers[0].ack_wait`.
    pub key: String,
    /// The value; a secret is `***`, what is left out is null.
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
            value => settings.push(Setting { key: path.to_string(), value, origin: self.tree.origin(path) }),
        }
    }
}
