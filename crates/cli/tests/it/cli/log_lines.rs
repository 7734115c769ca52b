//! The lines of the JSON log: keys that are there once, and what they say of a message.

use std::fmt;

use serde::{Deserialize, Deserializer, de::MapAccess};
use serde_json::{Map, Value};

use super::Program;

/// A JSON object that must not have a key twice. Parsers keep one of two values.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(line: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut all = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if let Some(before) = all.insert(key.clone(), value) {
                        return Err(serde::de::Error::custom(format!("{key} is there twice, first as {before}")));
                    }
                }
                Ok(Unique(all))
            }
        }
        line.deserialize_map(Visitor)
    }
}

/// The lines of a log whose text begins like this.
fn lines(log: &str, text: &str) -> Vec<Map<String, Value>> {
    let is_json = |line: &&str| line.starts_with('{');
    let parsed = log.lines().filter(is_json).map(|line| match serde_json::from_str::<Unique>(line) {
        Ok(Unique(line)) => line,
        Err(error) => panic!("{error}: {line}"),
    });
    parsed.filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with(text))).collect()
}

fn text<'a>(line: &'a Map<String, Value>, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

#[test]
fn every_line_of_a_run_has_unique_keys_and_names_its_message() {
    let program = Program::new();
    let yaml = "
server: {listen: '127.0.0.1:0', queues: [{name: orders, max_consume_count: 2, groups: [billing]}]}
workers:
  - {name: pay, queue: orders, group: billing, handler: {command: [/bin/sh, -c, 'echo no such account >&2; exit 1']}}
log: {format: json, filter: 'info,dms_worker=debug,dms_server=debug'}
";
    let mut run = program.start(&["run", "-c", &program.file("config.yaml", yaml)]);
    let url = run.url("server on ");
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
    dms(&["queue", "create", "other", "--group", "g"]);
    dms(&["group", "delete", "other", "g", "--yes"]);
    dms(&["queue", "delete", "other", "--yes"]);
    let id = dms(&["send", "orders", "{\"order\":1}", "--ids"]);
    run.until("a message became a dead letter");
    run.signal("TERM");
    let (status, log) = run.wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let failed = lines(&log, "the handler failed");
    assert_eq!(failed.len(), 2, "{log}");
    for (line, attempt) in failed.iter().zip(1..) {
        let keys = ["worker", "queue", "group", "message_id", "outcome", "reason"];
        assert_eq!(keys.map(|key| text(line, key)), ["pay", "orders", "billing", id.trim(), "failed", "failed"]);
        assert_eq!((&line["attempt"], &line["level"]), (&Value::from(attempt), &Value::from("WARN")));
    }
    let died = lines(&log, "a message became a dead letter");
    let keys = ["project", "queue", "group", "message_id", "reason", "worker", "level"];
    let expected = ["local", "orders", "billing", id.trim(), "failed", "pay", "WARN"];
    assert_eq!(keys.map(|key| text(&died[0], key)), expected);
    assert_eq!((died.len(), &died[0]["attempts"]), (1, &Value::from(2)));
    for change in ["a queue was created", "a group was created", "a group was deleted", "a queue was deleted"] {
        let line = lines(&log, change).into_iter().find(|line| text(line, "queue") == "other");
        assert_eq!(line.map(|line| line["level"].clone()), Some("INFO".into()), "{change}: {log}");
    }
    let debug = ["Some(", "None", "Ok(", "Err(", " { "];
    let shown =
        log.lines().filter(|line| line.starts_with('{')).find(|line| debug.iter().any(|text| line.contains(text)));
    assert_eq!(shown, None);
}
