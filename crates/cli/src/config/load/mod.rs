//! Reading a configuration: the layers in their order, what the types make of them, and what the checks find.

mod defaults;
mod extract;
pub(crate) mod keys_file;
pub(crate) mod loaded;
pub(crate) mod request;
pub(crate) mod secret_files;
mod suggest;

use std::{collections::BTreeMap, path::PathBuf};

use figment::value::Value;
use serde_json::Value as Json;

use self::{defaults::follow, extract::extract, loaded::Loaded, request::Request};
use crate::config::{
    check::{check, checker::Checker},
    schema::{config::Config, values::Secret},
    source::{
        environment::{overrides, passed_over},
        layer::Override,
        path::KeyPath,
        problem::{ConfigError, Origin, Problem},
        tree::Tree,
    },
};

/// The secrets of files, by the files.
pub(crate) type FileSecrets = BTreeMap<PathBuf, Secret>;

/// Reads and checks a configuration.
///
/// # Errors
/// When anything in it is wrong: every mistake is named, with its place, key, value and the allowed values.
pub fn load(request: &Request) -> Result<Loaded, ConfigError> {
    let mut tree = Tree::default();
    let mut problems = Vec::new();
    if let Some(file) = &request.file {
        problems.extend(tree.add_file(file, &|name| request.variable(name)));
    }
    problems.extend(request.context.iter().filter_map(|setting| tree.add(setting)));
    let variables = overrides(&request.variables);
    problems.extend(variables.iter().chain(&request.flags).filter_map(|setting| tree.add(setting)));
    problems.extend(vendor_project(&tree, request).and_then(|setting| tree.add(&setting)));

    let extracted = extract::<Config>(&tree);
    problems.extend(extracted.problems);
    problems.extend(mistyped(&tree, &extracted.value));
    let mut config = extracted.value;
    config.secret_variables.clone_from(tree.secret_variables());
    follow(&mut config, &|path| tree.is_set(path));
    let mut checker = Checker::new(&tree, extracted.broken, problems);
    let secret_files = secret_files::read_files(&mut config, &request.in_force, &mut checker);
    check(&config, &mut checker);
    match checker.finish() {
        problems if problems.is_empty() => {
            let service_links = passed_over(&request.variables);
            Ok(Loaded { config, tree, service_links, secret_files })
        }
        problems => Err(ConfigError::new(problems)),
    }
}

/// Numbers for `true` or `false`, and the other way round: figment converts them, because variables have texts only.
fn mistyped(tree: &Tree, config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let read = serde_json::to_value(config).unwrap_or_default();
    let written = Value::from(tree.settings().clone());
    find_mistyped(tree, &KeyPath::default(), &written, &read, &mut found);
    found
}

fn find_mistyped(tree: &Tree, path: &KeyPath, written: &Value, read: &Json, found: &mut Vec<Problem>) {
    let message = match (written, read) {
        (Value::Dict(_, dict), Json::Object(map)) => {
            for (key, written) in dict {
                map.get(key).into_iter().for_each(|read| find_mistyped(tree, &path.child(key), written, read, found));
            }
            return;
        }
        (Value::Array(_, items), Json::Array(values)) => {
            for (place, (written, read)) in items.iter().zip(values).enumerate() {
                find_mistyped(tree, &path.child(place), written, read, found);
            }
            return;
        }
        (Value::Num(_, number), Json::Bool(_)) => {
            let number =
                serde_json::to_value(number).map_or_else(|_| "a number".to_owned(), |number| format!("`{number}`"));
            format!("{number} is not allowed: true or false is needed")
        }
        (Value::Bool(_, value), Json::Number(_)) => format!("`{value}` is not allowed: a number is needed"),
        _ => return,
    };
    found.push(Problem::new(tree.nearest_origin(path), path, message));
}

/// The project of the vendor's variables, for a service of which the configuration names none.
fn vendor_project(tree: &Tree, request: &Request) -> Option<Override> {
    const VARIABLE: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
    let path = KeyPath::dotted("dms.project_id");
    let endpoint = tree.value(&KeyPath::dotted("dms.endpoint"))?.as_str()?;
    let open = endpoint != "embedded" && tree.value(&path).is_none();
    let value = request.variable(VARIABLE).filter(|value| open && !value.is_empty())?;
    Some(Override { path, origin: Origin::Variable(VARIABLE.to_owned()), value })
}
