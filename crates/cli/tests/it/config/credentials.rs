//! Empty credentials of every kind are refused everywhere.

use std::collections::BTreeSet;

use dms_worker_cli::config::schema;
use serde_json::{Value, json};

use super::{documented, mistakes};

/// The keys whose values are secrets, as the schema knows them.
fn secret_keys(schema: &Value, found: &mut BTreeSet<String>) {
    let is_secret = |value: &Value| value.to_string().contains("\"#/$defs/Secret\"");
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                let fields = properties.iter().filter(|(key, field)| *key != "headers" && is_secret(field));
                found.extend(fields.map(|(key, _)| key.clone()));
            }
            map.values().for_each(|value| secret_keys(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| secret_keys(item, found)),
        _ => {}
    }
}

/// The places of these keys in a configuration, as JSON pointers.
fn places(value: &Value, place: &str, keys: &BTreeSet<String>, found: &mut Vec<String>) {
    let mut visit = |step: &str, value: &Value, wanted: bool| {
        let place = format!("{place}/{step}");
        if wanted {
            found.push(place.clone());
        }
        places(value, &place, keys, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| visit(key, value, keys.contains(key))),
        Value::Array(items) => items.iter().enumerate().for_each(|(at, value)| visit(&at.to_string(), value, false)),
        _ => {}
    }
}

/// `/workers/0/name` as `workers[0].name`.
fn key(place: &str) -> String {
    let mut key = String::new();
    for step in place.split('/').skip(1) {
        match step.parse::<usize>() {
            Ok(index) => key.push_str(&format!("[{index}]")),
            Err(_) if key.is_empty() => key.push_str(step),
            Err(_) => key.push_str(&format!(".{step}")),
        }
    }
    key
}

#[test]
fn empty_secrets_are_refused() {
    let mut keys = BTreeSet::new();
    secret_keys(&schema(), &mut keys);
    let config: Value = yaml_serde::from_str(&documented::uncommented()).unwrap();
    let mut found = Vec::new();
    places(&config, "", &keys, &mut found);
    let kinds: BTreeSet<_> = found.iter().map(|place| place.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(kinds, keys, "a kind of secret is not in config.yaml");
    assert!(found.len() >= 9, "{found:?}");
    for place in found {
        for blank in ["", " \t"] {
            let mut config = config.clone();
            *config.pointer_mut(&place).unwrap() = json!(blank);
            let mistakes = mistakes(&config.to_string(), &[]);
            let expected = format!(": {}: is empty: set it, or leave it out", key(&place));
            assert!(mistakes.iter().any(|mistake| mistake.ends_with(&expected)), "{expected}: {mistakes:?}");
        }
    }
}

#[test]
fn empty_secret_files_are_refused() {
    let mut keys = BTreeSet::new();
    secret_keys(&schema(), &mut keys);
    let files = keys.iter().map(|key| format!("{key}_file")).collect();
    let config: Value = yaml_serde::from_str(&documented::uncommented()).unwrap();
    let mut found = Vec::new();
    places(&config, "", &files, &mut found);
    assert!(found.len() >= 9, "{found:?}");
    let dir = tempfile::tempdir().unwrap();
    for place in found {
        for blank in ["", " \r\n\t\n"] {
            let file = dir.path().join("secret");
            std::fs::write(&file, blank).unwrap();
            let mut config = config.clone();
            let (section, name) = place.rsplit_once('/').unwrap();
            let section = config.pointer_mut(section).unwrap().as_object_mut().unwrap();
            section.remove(name.strip_suffix("_file").unwrap());
            section.insert(name.to_owned(), json!(file));
            let mistakes = mistakes(&config.to_string(), &[]);
            let expected = format!("{}: `{}` is empty: put the secret in it", key(&place), file.display());
            assert!(mistakes.iter().any(|mistake| mistake.ends_with(&expected)), "{expected}: {mistakes:?}");
        }
    }
}

#[test]
fn empty_secrets_in_variables_and_headers_are_refused() {
    let config = "server: {queues: [{name: q, groups: [g]}]}\nworkers: [{queue: q, group: g, handler: {http: {url: 'http://127.0.0.1:8080', \
                  headers: {Authorization: 'Bearer ${NOTHING:-}', x-api-key: '', accept: ''}}}}]\n";
    let empty = ": is empty: set it, or leave it out";
    assert_eq!(
        mistakes(config, &[("DMS_WORKER_ADMIN__TOKEN", " ")]),
        [
            format!("config.yaml:2: workers[0].handler.http.headers.Authorization{empty}"),
            format!("config.yaml:2: workers[0].handler.http.headers.x-api-key{empty}"),
            format!("DMS_WORKER_ADMIN__TOKEN: admin.token{empty}"),
        ]
    );
}
