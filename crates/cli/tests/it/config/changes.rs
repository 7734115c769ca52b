//! The table in docs/operations.md of what a change of each key takes.

use std::collections::BTreeSet;

use dms_worker_cli::config::{CHANGE_EFFECTS, ChangeEffect, change_effect, schema};
use serde_json::Value;

const OPERATIONS: &str = include_str!("../../../../../docs/operations.md");

/// The keys of the schema, with `[]` for places in lists, down to those with values.
fn keys(schema: &Value, of: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(name) = of["$ref"].as_str() {
        return keys(schema, &schema["$defs"][name.trim_start_matches("#/$defs/")], place, found);
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        of[choice].as_array().into_iter().flatten().for_each(|of| keys(schema, of, place, found));
    }
    if of["items"].is_object() {
        keys(schema, &of["items"], &format!("{place}[]"), found);
    }
    for (key, of) in of["properties"].as_object().into_iter().flatten() {
        let key = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        found.insert(key.clone());
        keys(schema, of, &key, found);
    }
}

#[test]
fn the_effect_of_a_change_is_known_for_every_key_and_documented() {
    let (schema, mut known) = (schema(), BTreeSet::new());
    keys(&schema, &schema, "", &mut known);
    assert!(known.len() > 150 && known.contains("server.queues[].retention"), "{known:?}");
    // A section is not a key that has a value.
    let has_keys = |key: &str| {
        known.iter().any(|other| other.starts_with(&format!("{key}.")) || other.starts_with(&format!("{key}[]")))
    };
    for key in known.iter().filter(|key| !has_keys(key)) {
        assert!(change_effect(key).is_some(), "src/config/changes.rs does not say what a change of {key} takes");
    }
    for (entry, _) in CHANGE_EFFECTS {
        assert!(known.contains(entry.trim_end_matches("[]")), "there is no key {entry}");
    }

    let table = OPERATIONS.split_once("| key | a change |").unwrap().1.split_once("\n\n").unwrap().0;
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.trim_end_matches(" |").split_once("` | "));
    let documented: Vec<_> = rows
        .map(|(key, effect)| {
            let effects = [
                ("at once", ChangeEffect::Live),
                ("restarts that part", ChangeEffect::Part),
                ("needs a restart", ChangeEffect::Process),
            ];
            let found = effects.into_iter().find(|(words, _)| effect.starts_with(words));
            (key, found.unwrap_or_else(|| panic!("{key}: {effect}")).1)
        })
        .collect();
    assert_eq!(documented, CHANGE_EFFECTS, "docs/operations.md on the left, src/config/changes.rs on the right");
}
