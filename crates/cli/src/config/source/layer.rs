//! One layer of settings: a file's, or a single variable's or flag's.

use figment::{
    Metadata, Profile, Provider, Source,
    value::{Dict, Map, Tag, Value},
};

use crate::config::source::{
    path::{KeyPath, index},
    problem::Origin,
};

/// A setting made outside the file, always as text: the type that it is read into decides what the text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    /// The key.
    pub(crate) path: KeyPath,
    /// Who made it.
    pub(crate) origin: Origin,
    /// The text.
    pub(crate) value: String,
}

/// Settings of one origin, for figment. Values that already have a tag keep it, and with it their origin.
pub(crate) struct Layer {
    pub(crate) origin: Origin,
    pub(crate) settings: Dict,
}

/// What a [`Source::Custom`] says for a variable; a flag has another word.
const VARIABLE: &str = "variable";

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        match &self.origin {
            Origin::Default => Metadata::named("default"),
            Origin::File { path, .. } => Metadata::from("file", path.as_path()),
            Origin::Variable(name) => Metadata::from(name.clone(), Source::Custom(VARIABLE.to_owned())),
            Origin::Flag(name) => Metadata::from(name.clone(), Source::Custom("flag".to_owned())),
        }
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}

/// The origin that a layer's metadata stands for, without a line.
pub(crate) fn origin(metadata: &Metadata) -> Origin {
    match &metadata.source {
        Some(Source::File(path)) => Origin::File { path: path.clone(), line: None },
        Some(Source::Custom(kind)) if kind == VARIABLE => Origin::Variable(metadata.name.to_string()),
        Some(Source::Custom(_)) => Origin::Flag(metadata.name.to_string()),
        _ => Origin::Default,
    }
}

/// The place of `path` below `value`.
pub(crate) fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((step, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Dict(_, dict) => find(dict.get(step)?, rest),
        Value::Array(_, items) => find(items.get(index(step)?)?, rest),
        _ => None,
    }
}

/// Sets the place of `path` below `value`, making maps and lists on the way; one place behind the end of a list adds
/// an item.
///
/// # Errors
/// When a list is shorter than that, with the remedy.
pub(crate) fn set(value: &mut Value, path: &[String], new: Value) -> Result<(), String> {
    let Some((step, rest)) = path.split_first() else {
        *value = new;
        return Ok(());
    };
    if !matches!(value, Value::Dict(..) | Value::Array(..)) {
        *value = match index(step) {
            Some(_) => Value::Array(Tag::Default, Vec::new()),
            None => Value::Dict(Tag::Default, Dict::new()),
        };
    }
    match value {
        Value::Dict(_, dict) => set(dict.entry(step.clone()).or_insert_with(empty), rest, new),
        Value::Array(_, items) => {
            let length = items.len();
            match index(step) {
                Some(place) if place < length => set(&mut items[place], rest, new),
                Some(place) if place == length => {
                    items.push(empty());
                    set(&mut items[place], rest, new)
                }
                _ => Err(format!("`{step}` is no place in a list of {length}: use 0 to {length}")),
            }
        }
        _ => Ok(()),
    }
}

fn empty() -> Value {
    Value::Empty(Tag::Default, figment::value::Empty::None)
}
