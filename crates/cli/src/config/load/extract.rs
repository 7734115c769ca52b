//! Reads settings into a type and finds *every* value that does not fit.
//!
//! Serde stops at the first error. So the offending value is noted and taken out, which leaves its default, and the
//! reading starts again, until it succeeds: the types themselves stay the only description of the allowed values.

use std::collections::BTreeSet;

use figment::{
    Figment,
    error::{Actual, Kind},
    value::{Dict, Tag, Value},
};
use serde::de::DeserializeOwned;

use crate::config::{
    load::suggest::one_of,
    source::{
        layer::{self, Layer},
        path::{KeyPath, index},
        problem::{Origin, Problem},
        secret_variables::is_secret_place,
        tree::Tree,
    },
};
use dms_protocol::internal::{
    secret_url::{MASK, without_secrets},
    suggest::nearest,
};

/// The values that could be read, and the mistakes in the others.
#[derive(Debug)]
pub(crate) struct Extracted<T> {
    pub(crate) value: T,
    pub(crate) problems: Vec<Problem>,
    /// The keys with problems.
    pub(crate) broken: BTreeSet<KeyPath>,
}

/// Reads the settings of `tree`.
pub(crate) fn extract<T: DeserializeOwned + Default>(tree: &Tree) -> Extracted<T> {
    let mut settings = tree.settings().clone();
    let mut problems = Vec::new();
    let mut broken = BTreeSet::new();
    loop {
        let layer = Layer { origin: Origin::Default, settings: settings.clone() };
        let error = match Figment::from(layer).extract_lossy::<T>() {
            Ok(value) => return Extracted { value, problems, broken },
            Err(error) => error,
        };
        let path = KeyPath::new(error.path.iter().cloned());
        let empty = matches!(tree.value(&path), Some(Value::Empty(..)));
        // A key without a value counts as left out. An unknown key is a mistake even without a value.
        let mistake = !empty || matches!(error.kind, Kind::UnknownField(..));
        // A choice that is empty because its only key was removed is not a separate mistake.
        let follows = broken.iter().any(|known: &KeyPath| known.overlaps(&path));
        if mistake && !follows {
            broken.insert(path.clone());
            problems.push(Problem::new(tree.nearest_origin(&path), &path, describe(tree, &path, &error.kind)));
        }
        if !take_out(&mut settings, &path, &error.kind) {
            return Extracted { value: T::default(), problems, broken };
        }
    }
}

/// Removes the value at `path`. Returns false if there is none, so that another try could not succeed either.
fn take_out(settings: &mut Dict, path: &KeyPath, kind: &Kind) -> bool {
    let Some(last) = path.last() else { return false };
    let parent = path.parent().unwrap_or_default();
    let mut root = Value::Dict(Tag::Default, std::mem::take(settings));
    let taken = match place(&mut root, parent.steps()) {
        Some(Value::Dict(_, dict)) => dict.remove(last).is_some(),
        // The other items of a list keep their places, and so their names in later messages.
        Some(Value::Array(_, items)) => index(last).is_some_and(|at| blank(items, at)),
        _ => false,
    };
    *settings = root.into_dict().unwrap_or_default();
    // The word of a choice was the only key of its map: the map goes with it.
    if matches!(kind, Kind::UnknownVariant(..))
        && layer::find(&Value::from(settings.clone()), parent.steps()).is_some_and(is_hollow)
    {
        return take_out(settings, &parent, &Kind::Message(String::new()));
    }
    taken
}

fn is_hollow(value: &Value) -> bool {
    value.as_dict().is_some_and(Dict::is_empty)
}

/// Replaces an item by something a list of maps, or else a list of texts, can be read from; in the end removes it.
fn blank(items: &mut Vec<Value>, at: usize) -> bool {
    let Some(item) = items.get_mut(at) else { return false };
    match item {
        Value::Dict(..) => *item = Value::from(""),
        Value::String(_, text) if text.is_empty() => drop(items.remove(at)),
        _ => *item = Value::Dict(Tag::Default, Dict::new()),
    }
    true
}

fn place<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    let Some((step, rest)) = path.split_first() else { return Some(value) };
    match value {
        Value::Dict(_, dict) => place(dict.get_mut(step)?, rest),
        Value::Array(_, items) => place(items.get_mut(index(step)?)?, rest),
        _ => None,
    }
}

/// Describes a mistake in the terms of a configuration, not of serde.
fn describe(tree: &Tree, path: &KeyPath, kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(name, known) => match nearest(name, known) {
            Some(meant) => format!("unknown key; did you mean `{meant}`?"),
            None => format!("unknown key; known here: {}", known.join(", ")),
        },
        Kind::UnknownVariant(word, known) => {
            let hint = nearest(word, known).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
            format!("{} is not allowed: write {}{hint}", quoted(path, word), one_of(known))
        }
        // A word of a choice, where the choice needs a value with it, or takes none.
        Kind::InvalidType(Actual::UnitVariant, _) => {
            let word = tree.value(path).and_then(Value::as_str).unwrap_or("this");
            format!("{} needs a value: write {{{word}: ...}}", quoted(path, word))
        }
        Kind::InvalidType(_, expected) if expected == "unit" => match path.last() {
            Some(word) => format!("`{word}` takes no value: write it alone"),
            None => "takes no value".to_owned(),
        },
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => mismatch(path, actual, expected),
        Kind::Message(message) if message == "invalid socket address syntax" => {
            let text = tree.value(path).and_then(Value::as_str).unwrap_or_default();
            format!("{} is not allowed: an address like 127.0.0.1:9400 is needed", quoted(path, text))
        }
        Kind::Message(message) => without_secrets(message),
        other => other.to_string(),
    }
}

fn mismatch(path: &KeyPath, actual: &Actual, expected: &str) -> String {
    let shown = shown(path, actual);
    let wants_text = expected.contains("string");
    match actual {
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) if wants_text => {
            format!("{shown} is a number, a text is needed: put it in quotes")
        }
        Actual::Bool(_) if wants_text => format!("{shown} is not a text: put it in quotes"),
        Actual::Str(_) if expected == "a sequence" => {
            format!("{shown} is not a list: write [a, b], or one variable per item with __0, __1, ... behind the name")
        }
        _ => format!("{shown} is not allowed: {} is needed", plain(expected)),
    }
}

/// Serde's name of an expected type, in the terms of YAML.
fn plain(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number from 0".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" => "a text".to_owned(),
        "socket address" => "an address like 127.0.0.1:9400".to_owned(),
        other if other.starts_with("struct ") => "a map of `key: value`".to_owned(),
        other if other.starts_with("enum") => "one of the words of config.yaml".to_owned(),
        other => other.to_owned(),
    }
}

/// A text as a message shows it.
fn quoted(path: &KeyPath, text: &str) -> String {
    if is_secret_place(path) { MASK.to_owned() } else { format!("`{}`", without_secrets(text)) }
}

fn shown(path: &KeyPath, actual: &Actual) -> String {
    match actual {
        Actual::Map => "a map".to_owned(),
        Actual::Seq => "a list".to_owned(),
        Actual::Unit | Actual::Option => "nothing".to_owned(),
        _ if is_secret_place(path) => MASK.to_owned(),
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(number) => format!("`{number}`"),
        Actual::Signed(number) => format!("`{number}`"),
        Actual::Float(number) => format!("`{number}`"),
        Actual::Str(text) => quoted(path, text),
        other => other.to_string(),
    }
}
