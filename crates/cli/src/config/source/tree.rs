//! [`Tree`]: the merged layers, each value with its origin.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    value::{Dict, Tag, Value},
};

use crate::config::source::{
    layer::{self, Layer, Override},
    locate::line,
    path::KeyPath,
    problem::{Origin, Problem},
    yaml,
};
use dms_protocol::internal::text;

/// The section that may also be written as just an address.
const ADDRESS_OR_SECTION: &str = "server.admin";

/// The merged layers, without keys that no layer sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    figment: Figment,
    root: Dict,
    file: Option<(PathBuf, String)>,
    secret_variables: BTreeSet<String>,
}

impl Tree {
    /// Adds the settings of a YAML file. Returns the mistakes in it.
    pub(crate) fn add_file(&mut self, path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<Problem> {
        let origin = Origin::File { path: path.to_owned(), line: None };
        let text = match text::read(path) {
            Ok(text) => text,
            Err(error) => return vec![Problem::new(origin, "", format!("cannot be read: {error}"))],
        };
        let parsed = yaml::parse(&text, lookup);
        self.file = Some((path.to_owned(), text));
        self.merge(origin, parsed.settings);
        self.secret_variables.extend(parsed.secret_variables);
        let at = |mistake: yaml::Mistake| {
            let line = mistake.line.or_else(|| self.line(&mistake.path));
            Problem::new(Origin::File { path: path.to_owned(), line }, mistake.path, mistake.message)
        };
        parsed.mistakes.into_iter().map(at).collect()
    }

    /// Adds the setting of a variable or a flag, which overrides the layers before it.
    pub(crate) fn add(&mut self, setting: &Override) -> Option<Problem> {
        let path = self.in_section(&setting.path);
        let (top, rest) = path.steps().split_first()?;
        let mut value = self.root.get(top).cloned().unwrap_or(Value::Empty(Tag::Default, figment::value::Empty::None));
        if let Err(message) = self.set(&path, &mut value, rest, &setting.value) {
            return Some(Problem::new(setting.origin.clone(), &setting.path, message));
        }
        // A secret and its file are two keys for one setting, so a later layer that has one of them overrides the other.
        if let Some(other) = other_key(&path).filter(|other| matches!(self.origin(other), Origin::File { .. })) {
            let nothing = Value::Empty(Tag::Default, figment::value::Empty::None);
            let _ = layer::set(&mut value, other.steps().get(1..).unwrap_or_default(), nothing);
        }
        self.merge(setting.origin.clone(), Dict::from([(top.clone(), value)]));
        None
    }

    /// The path at which a setting is stored. An address for `server.admin` goes into the section, if an earlier layer has one.
    fn in_section(&self, path: &KeyPath) -> KeyPath {
        let is_section = matches!(self.value(path), Some(Value::Dict(..)));
        if is_section && *path == KeyPath::dotted(ADDRESS_OR_SECTION) { path.child("listen") } else { path.clone() }
    }

    /// Sets a path below the value of a top-level key. If an earlier layer has just an address there, it is moved into a new section.
    fn set(&self, path: &KeyPath, top: &mut Value, rest: &[String], new: &str) -> Result<(), String> {
        let section = KeyPath::dotted(ADDRESS_OR_SECTION);
        if path.parent().as_ref() == Some(&section)
            && let Some(address @ Value::String(..)) = self.value(&section)
        {
            let address = Dict::from([("listen".to_owned(), address.clone())]);
            layer::set(top, section.steps().get(1..).unwrap_or_default(), Value::Dict(Tag::Default, address))?;
        }
        layer::set(top, rest, Value::from(new))
    }

    fn merge(&mut self, origin: Origin, settings: Dict) {
        self.figment = std::mem::take(&mut self.figment).merge(Layer { origin, settings });
        self.root = self.figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
    }

    /// The variables from which the file takes secrets.
    pub(crate) fn secret_variables(&self) -> &BTreeSet<String> {
        &self.secret_variables
    }

    /// The merged settings.
    pub(crate) fn settings(&self) -> &Dict {
        &self.root
    }

    /// The value at `path`, where a layer sets it.
    pub(crate) fn value(&self, path: &KeyPath) -> Option<&Value> {
        let (top, rest) = path.steps().split_first()?;
        layer::find(self.root.get(top)?, rest)
    }

    /// Whether a layer sets `path`. A key without a value counts as left out.
    pub(crate) fn is_set(&self, path: &KeyPath) -> bool {
        self.value(path).is_some_and(|value| !matches!(value, Value::Empty(..)))
    }

    /// Where the value at `path` was set: [`Origin::Default`] where no layer does.
    pub(crate) fn origin(&self, path: &KeyPath) -> Origin {
        let Some(metadata) = self.value(path).and_then(|value| self.figment.get_metadata(value.tag())) else {
            return Origin::Default;
        };
        match layer::origin(metadata) {
            Origin::File { path: file, .. } => Origin::File { path: file, line: self.line(path) },
            other => other,
        }
    }

    /// Where the value at `path` was set, or else the nearest section around it.
    pub(crate) fn nearest_origin(&self, path: &KeyPath) -> Origin {
        let mut path = Some(path.clone());
        while let Some(place) = path {
            match self.origin(&place) {
                Origin::Default => path = place.parent(),
                found => return found,
            }
        }
        Origin::Default
    }

    fn line(&self, path: &KeyPath) -> Option<usize> {
        let (_, text) = self.file.as_ref()?;
        line(text, path)
    }
}

/// `secret_key_file` for `secret_key`, and the other way round.
fn other_key(path: &KeyPath) -> Option<KeyPath> {
    let key = path.last()?;
    let other = key.strip_suffix("_file").map_or_else(|| format!("{key}_file"), str::to_owned);
    Some(path.parent()?.child(other))
}
