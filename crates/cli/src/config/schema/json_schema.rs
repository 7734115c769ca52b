//! The JSON Schema of a configuration file, for editors: made from the types that read it, so that neither can be stale.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings, json_schema, transform::transform_subschemas};
use serde_json::{Map, Value, json};

use crate::config::schema::config::Config;

/// The definition of `${VARIABLE}`.
const VARIABLE: &str = "#/$defs/Variable";
/// What stands beside a `$ref` or an `anyOf` and is no rule.
const ANNOTATIONS: [&str; 2] = ["description", "default"];

/// The JSON Schema (draft 2020-12) of a configuration file.
///
/// It knows keys, types, words and ranges. What settings need of each other is what [`load`](crate::config::load()) finds.
pub fn schema() -> Value {
    let mut schema: Schema = SchemaGenerator::new(SchemaSettings::draft2020_12()).into_root_schema_for::<Config>();
    as_written(&mut schema);
    let mut schema = schema.to_value();
    schema["title"] = json!("Configuration of dms-worker");
    schema["$defs"]["Variable"] = json!({
        "description": "A value taken from the environment: ${VARIABLE} or ${VARIABLE:-default}.",
        "type": "string",
        "pattern": r"\$\{",
    });
    schema
}

/// Widens a schema of values to what a file may say for them: `${VARIABLE}` in place of a number or a word, and nothing
/// at all behind a key that may be left out.
fn as_written(schema: &mut Schema) {
    transform_subschemas(&mut as_written, schema);
    let required: Vec<_> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let optional = properties.iter_mut().filter(|(key, _)| !required.contains(&json!(key)));
        optional.for_each(|(_, property)| or(property, &json!({ "type": "null" })));
    }
    let words =
        |words: &Value| words.as_array().is_some_and(|words| words.iter().any(|word| word.get("const").is_some()));
    let pattern = schema.get("pattern").is_some();
    let number = schema.get("type").is_some_and(|kind| names(kind).any(|kind| ["integer", "boolean"].contains(&kind)));
    if let Some(choices) = schema.get_mut("oneOf").filter(|choices| words(choices)).and_then(Value::as_array_mut) {
        choices.push(json!({ "$ref": VARIABLE }));
    } else if pattern || number {
        let mut value = std::mem::replace(schema, json_schema!({})).to_value();
        or(&mut value, &json!({ "$ref": VARIABLE }));
        *schema = value.try_into().unwrap_or_default();
    }
}

/// The names in the value of `type`.
fn names(kind: &Value) -> impl Iterator<Item = &str> {
    kind.as_array().map_or(std::slice::from_ref(kind), Vec::as_slice).iter().filter_map(Value::as_str)
}

/// Allows something else too.
fn or(schema: &mut Value, other: &Value) {
    let kind = other.get("type").and_then(Value::as_str);
    if kind.is_some_and(|kind| schema.get("type").is_some_and(|known| names(known).any(|name| name == kind))) {
        return;
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        if !choices.contains(other) {
            choices.push(other.clone());
        }
        return;
    }
    let Some(rules) = schema.as_object_mut() else { return };
    let mut outer = Map::new();
    for key in ANNOTATIONS {
        outer.extend(rules.remove(key).map(|value| (key.to_owned(), value)));
    }
    outer.insert("anyOf".to_owned(), json!([schema, other]));
    *schema = Value::Object(outer);
}
