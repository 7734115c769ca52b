//! A YAML text as settings: merge keys applied, variables put in, nothing else interpreted.

use std::collections::BTreeSet;

use figment::value::{Dict, Empty, Num, Tag, Value};

use crate::config::source::{
    interpolate::interpolate,
    path::KeyPath,
    secret_variables::{is_secret_place, secret_references},
};

/// The settings of a text as far as they can be read, and the mistakes in it.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) settings: Dict,
    pub(crate) mistakes: Vec<Mistake>,
    /// The variables that secrets were put in from.
    pub(crate) secret_variables: BTreeSet<String>,
}

/// Something wrong with a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The key; the top when the text as a whole is wrong.
    pub(crate) path: KeyPath,
    /// The line, where the parser names one.
    pub(crate) line: Option<usize>,
    /// The description.
    pub(crate) message: String,
}

/// Reads `text`. Duplicate keys are refused; an empty text has no settings.
pub(crate) fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Parsed {
    let fail = |error: &yaml_serde::Error| {
        let line = error.location().map(|location| location.line());
        let mistake = Mistake { line, message: error.to_string(), ..Mistake::default() };
        Parsed { mistakes: vec![mistake], ..Parsed::default() }
    };
    // Through `Value`: only it refuses duplicate keys.
    let mut document: yaml_serde::Value = match yaml_serde::from_str(text) {
        Ok(document) => document,
        Err(error) => return fail(&error),
    };
    if let Err(error) = document.apply_merge() {
        return fail(&error);
    }
    let mut reader = Reader { lookup, mistakes: Vec::new(), secret_variables: BTreeSet::new() };
    let settings = match reader.value(&KeyPath::default(), document) {
        Value::Dict(_, dict) => dict,
        Value::Empty(..) => Dict::new(),
        _ => {
            reader.report(&KeyPath::default(), "has no `key: value` lines at its top".to_owned());
            Dict::new()
        }
    };
    Parsed { settings, mistakes: reader.mistakes, secret_variables: reader.secret_variables }
}

struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mistakes: Vec<Mistake>,
    secret_variables: BTreeSet<String>,
}

impl Reader<'_> {
    fn value(&mut self, path: &KeyPath, value: yaml_serde::Value) -> Value {
        match value {
            yaml_serde::Value::Null => Value::Empty(Tag::Default, Empty::None),
            yaml_serde::Value::Bool(value) => Value::from(value),
            yaml_serde::Value::Number(number) => self.number(&number),
            yaml_serde::Value::String(text) => self.text(path, &text),
            yaml_serde::Value::Sequence(items) => {
                let items = items.into_iter().enumerate().map(|(place, item)| self.value(&path.child(place), item));
                Value::Array(Tag::Default, items.collect())
            }
            yaml_serde::Value::Mapping(map) => self.map(path, map),
            yaml_serde::Value::Tagged(tagged) => {
                self.report(path, format!("the tag {} means nothing here: leave it out", tagged.tag));
                self.value(path, tagged.value)
            }
        }
    }

    fn number(&self, number: &yaml_serde::Number) -> Value {
        let num = match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(unsigned), ..) => Num::from(unsigned),
            (_, Some(signed), _) => Num::from(signed),
            (.., float) => Num::from(float.unwrap_or(f64::NAN)),
        };
        Value::Num(Tag::Default, num)
    }

    fn text(&mut self, path: &KeyPath, text: &str) -> Value {
        self.secret_variables.extend(secret_references(path, text, self.lookup));
        match interpolate(text, self.lookup) {
            Ok(text) => Value::from(text),
            Err(reference) => {
                // A piece of a URL cannot be masked by its parts.
                let secret = is_secret_place(path) || text.contains("://");
                let shown = if secret { reference.masked() } else { reference };
                self.report(path, shown.to_string());
                // Left out rather than kept: the text with its `${` in it would be a second mistake.
                Value::Empty(Tag::Default, Empty::None)
            }
        }
    }

    fn map(&mut self, path: &KeyPath, map: yaml_serde::Mapping) -> Value {
        let mut dict = Dict::new();
        for (key, value) in map {
            let key = match key {
                yaml_serde::Value::String(key) => key,
                yaml_serde::Value::Number(number) => number.to_string(),
                yaml_serde::Value::Bool(word) => word.to_string(),
                _ => {
                    self.report(path, "a list, a map or nothing cannot be a key: keys are words".to_owned());
                    continue;
                }
            };
            let value = self.value(&path.child(&key), value);
            dict.insert(key, value);
        }
        Value::Dict(Tag::Default, dict)
    }

    fn report(&mut self, path: &KeyPath, message: String) {
        self.mistakes.push(Mistake { path: path.clone(), line: None, message });
    }
}
