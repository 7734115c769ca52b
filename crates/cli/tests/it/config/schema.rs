//! The schema for editors accepts and refuses the same configurations as the program.

use boon::{Compiler, SchemaIndex, Schemas};
use dms_worker_cli::config::schema;
use serde_json::{Value, json};

use super::documented;

/// The schema, ready to judge.
struct Judge {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Judge {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("config.json", schema()).unwrap();
        let index = compiler.compile("config.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        self.schemas.validate(config, self.index).map_err(|error| error.to_string())
    }

    fn yaml(&self, text: &str) -> Result<(), String> {
        self.check(&yaml_serde::from_str(text).unwrap())
    }
}

#[test]
fn the_documented_configuration_fits_the_schema() {
    Judge::new().yaml(&documented::text()).unwrap();
}

/// `config.yaml` with every key in it, and of the handlers only this one.
fn everything(handler: &str) -> Value {
    let mut config: Value = yaml_serde::from_str(&documented::uncommented()).unwrap();
    config["workers"][0]["handler"].as_object_mut().unwrap().retain(|key, _| key == handler);
    config
}

#[test]
fn every_documented_key_fits_the_schema() {
    let judge = Judge::new();
    for handler in ["http", "command", "log"] {
        judge.check(&everything(handler)).unwrap();
    }
}

/// The places of all maps in a configuration, but those whose keys are free.
fn maps(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.push(place.to_owned());
            let fixed = map.iter().filter(|(key, _)| !["headers", "message"].contains(&key.as_str()));
            fixed.for_each(|(key, value)| maps(value, &format!("{place}/{key}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| maps(item, &format!("{place}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn an_unknown_key_is_refused_in_every_section() {
    let judge = Judge::new();
    let mut seen = 0;
    for handler in ["http", "command", "log"] {
        let config = everything(handler);
        let mut places = Vec::new();
        maps(&config, "", &mut places);
        for place in places {
            let mut wrong = config.clone();
            wrong.pointer_mut(&place).unwrap()["surprise"] = json!(1);
            assert!(judge.check(&wrong).is_err(), "{place} takes a key that nobody knows");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn the_schema_and_the_reader_agree_on_values() {
    let judge = Judge::new();
    let worker = |extra: &str| format!("workers: [{{queue: q, group: g, handler: {{log: }}, {extra}}}]");
    let taken = [
        worker("concurrency: 64"),
        worker("concurrency: '${CONCURRENCY:-64}'"),
        worker("ack_wait: auto"),
        worker("ack_wait: 1m30s"),
        worker("ack_wait: "),
        worker("ordering: {key_attribute: customer_id}"),
        worker("on_failure: {republish: {max_attempts: 3}}"),
        worker("rate_limit: 200/s"),
        worker("max_messages: 10, pollers: auto"),
        "server: {fifo_blocks: '${FIFO}', queues: [{name: q, mode: FIFO}]}".to_owned(),
        "dms:\nserver:\n".to_owned(),
    ];
    let refused = [
        worker("concurrency: many"),
        worker("concurrency: 0"),
        worker("ack_wait: 30"),
        worker("ack_wait: soon"),
        worker("ordering: sometimes"),
        worker("ordering: {attribute: x}"),
        worker("rate_limit: 200"),
        worker("max_messages: few"),
        worker("tags: [a, b, c, d]"),
        "workers: [{queue: q, handler: {log: }}]".to_owned(),
        "workers: [{queue: q, group: g, handler: {log: , command: [x]}}]".to_owned(),
        "server: {queues: [{name: q, mode: fifo}]}".to_owned(),
        "server: {queues: [{name: q, max_consume_count: 101}]}".to_owned(),
        "server: {tls: {certificate: c}}".to_owned(),
        "server: {mqs: {auto_create: maybe}}".to_owned(),
    ];
    let whole = |text: &str| match text.contains("server:") {
        true => text.to_owned(),
        false => format!("server: {{queues: [{{name: q, groups: [g]}}]}}\n{text}"),
    };
    for text in taken {
        let error = judge.yaml(&text).err();
        assert_eq!(error, None, "the schema refuses {text}");
        let variables = [("CONCURRENCY", "8"), ("FIFO", "true")];
        assert!(super::read(&whole(&text), &variables).is_ok(), "the reader refuses {text}");
    }
    for text in refused {
        assert!(judge.yaml(&text).is_err(), "the schema takes {text}");
        assert!(super::read(&whole(&text), &[]).is_err(), "the reader takes {text}");
    }
}
