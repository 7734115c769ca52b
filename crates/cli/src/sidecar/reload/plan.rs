//! Compares two configurations: the workers, publishers and outboxes that are added, removed and changed. Pure.

use std::collections::BTreeSet;

use crate::{
    config::{self, Config, Dms, Outbox, Publisher},
    sidecar::running::publisher::PublisherKey,
};

/// What happens to a part of a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartChange {
    /// It continues, perhaps with other limits and secrets, which are changed while it runs.
    Stays,
    /// It exists with other settings, and is restarted.
    Restarts,
    /// It is new.
    Starts,
}

/// What happens to each part of a new configuration, in its order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) workers: Vec<PartChange>,
    pub(super) publishers: Vec<PartChange>,
    pub(super) outboxes: Vec<PartChange>,
}

impl Plan {
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        if is_other_client(&old.dms, &new.dms) {
            return Self::afresh(old, new);
        }
        let other_variables = old.secret_variables != new.secret_variables;
        let publishers = new.publishers.iter().zip(PublisherKey::all(&new.publishers));
        let publishers = publishers.map(|(publisher, key)| of_publisher(key.find(&old.publishers), publisher));
        Self {
            workers: new.workers.iter().map(|worker| of_worker(&old.workers, worker, other_variables)).collect(),
            publishers: publishers.collect(),
            outboxes: of_outboxes(&old.outboxes, &new.outboxes),
        }
    }

    /// Everything that exists is restarted, because it talks to the service in another way.
    fn afresh(old: &Config, new: &Config) -> Self {
        let change = |exists| if exists { PartChange::Restarts } else { PartChange::Starts };
        let exists = |worker: &config::Worker| old.workers.iter().any(|old| old.label() == worker.label());
        let keys = PublisherKey::all(&new.publishers);
        Self {
            workers: new.workers.iter().map(|worker| change(exists(worker))).collect(),
            publishers: keys.iter().map(|key| change(key.find(&old.publishers).is_some())).collect(),
            outboxes: vec![PartChange::Starts; new.outboxes.len()],
        }
    }
}

/// Whether the service is reached in another way. Credentials do not count, because a client replaces them while it is used.
pub(super) fn is_other_client(old: &Dms, new: &Dms) -> bool {
    Dms { auth: None, ..old.clone() } != Dms { auth: None, ..new.clone() }
}

/// With `other_variables`, the environment variables that are hidden from programs have changed, so workers with programs restart.
fn of_worker(old: &[config::Worker], new: &config::Worker, other_variables: bool) -> PartChange {
    let Some(before) = old.iter().find(|old| old.label() == new.label()) else { return PartChange::Starts };
    match with_live_settings(before, new) == *new && !(other_variables && new.handler.command.is_some()) {
        true => PartChange::Stays,
        false => PartChange::Restarts,
    }
}

/// A worker's old settings, except that settings that can change while it runs are taken from `new`.
fn with_live_settings(old: &config::Worker, new: &config::Worker) -> config::Worker {
    let mut changed = config::Worker {
        concurrency: new.concurrency,
        max_in_flight_bytes: new.max_in_flight_bytes,
        max_messages: new.max_messages,
        rate_limit: new.rate_limit,
        ..old.clone()
    };
    if let (Some(http), Some(new)) = (&mut changed.handler.http, &new.handler.http) {
        http.headers.clone_from(&new.headers);
        http.header_files.clone_from(&new.header_files);
        http.signature_key.clone_from(&new.signature_key);
        http.signature_key_file.clone_from(&new.signature_key_file);
    }
    changed
}

fn of_publisher(old: Option<&Publisher>, new: &Publisher) -> PartChange {
    let Some(before) = old else { return PartChange::Starts };
    let mut changed = before.clone();
    // Adding the first token or removing the last one also changes which callers are admitted without one.
    if before.token.is_some() == new.token.is_some() {
        changed.token.clone_from(&new.token);
        changed.token_file.clone_from(&new.token_file);
    }
    if changed == *new { PartChange::Stays } else { PartChange::Restarts }
}

/// An outbox has no name, so one with other settings is a different outbox.
fn of_outboxes(old: &[Outbox], new: &[Outbox]) -> Vec<PartChange> {
    let mut taken = BTreeSet::new();
    let mut change = |outbox: &Outbox| {
        let same = old.iter().enumerate().position(|(place, old)| old == outbox && !taken.contains(&place));
        match same.map(|place| taken.insert(place)) {
            Some(_) => PartChange::Stays,
            None => PartChange::Starts,
        }
    };
    new.iter().map(&mut change).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{ChangeEffect, Request, change_effect, load};

    fn config(yaml: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, format!("dms: {{endpoint: 'http://127.0.0.1:1'}}\n{yaml}")).unwrap();
        load(&Request::new().file(file)).unwrap_or_else(|error| panic!("{error}")).config
    }

    fn worker(settings: &str) -> Config {
        config(&format!("workers: [{{queue: orders, group: g, {settings}}}]"))
    }

    #[test]
    fn limits_and_secrets_of_a_worker_change_while_it_runs_and_other_settings_restart_it() {
        const HTTP: &str = "handler: {http: {url: 'http://127.0.0.1:1/'}}";
        let cases = [
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, concurrency: 7", PartChange::Stays),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, max_in_flight_bytes: 600000", PartChange::Stays),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, max_messages: 3, rate_limit: 5/s", PartChange::Stays),
            ("handler: {http: {url: 'http://127.0.0.1:1/', headers: {x-key: a}}}", PartChange::Stays),
            ("handler: {http: {url: 'http://127.0.0.1:1/', signature_key: a}}", PartChange::Stays),
            ("handler: {http: {url: 'http://127.0.0.1:2/'}}", PartChange::Restarts),
            ("handler: {http: {url: 'http://127.0.0.1:1/', timeout: 3s}}", PartChange::Restarts),
            ("handler: {http: {url: 'http://user:x@127.0.0.1:1/'}}", PartChange::Restarts),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, ack_wait: 60s", PartChange::Restarts),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, weight: 2", PartChange::Restarts),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, deduplicate: {key: id}", PartChange::Restarts),
            ("handler: {log: {}}", PartChange::Restarts),
            ("handler: {http: {url: 'http://127.0.0.1:1/'}}, name: other", PartChange::Starts),
        ];
        for (settings, change) in cases {
            assert_eq!(Plan::between(&worker(HTTP), &worker(settings)).workers, [change], "{settings}");
        }
    }

    /// Every key of a section with another value, as far as one of these fits.
    fn variants(section: &Value) -> Vec<(String, Value)> {
        let values = [
            json!(7),
            json!("7s"),
            json!("900s"),
            json!("7/s"),
            json!(true),
            json!(false),
            json!("other"),
            json!(["other"]),
            json!({"other": "value"}),
            json!("batch"),
            json!("discard"),
            json!({"park": "other"}),
            json!({"republish": {}}),
            json!("dead_letters"),
            json!("and"),
            json!("cloudevents"),
            json!("plain"),
            json!("consumed"),
            json!({"max_attempts": 7}),
            json!({"key": "id"}),
        ];
        let keys = section.as_object().unwrap().keys();
        keys.flat_map(|key| values.iter().map(|value| (key.clone(), value.clone()))).collect()
    }

    /// The documented effect of each key is the real one.
    #[test]
    fn a_change_of_each_key_of_a_worker_does_what_the_table_of_effects_says() {
        let worker = worker("handler: {http: {url: 'http://127.0.0.1:1/'}}").workers.remove(0);
        let whole = serde_json::to_value(&worker).unwrap();
        let worker: config::Worker = serde_json::from_value(whole.clone()).unwrap();
        let (mut seen, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for (section, pointer) in [("", ""), (".handler.http", "/handler/http")] {
            for (key, value) in variants(whole.pointer(pointer).unwrap()) {
                let name = format!("workers[]{section}.{key}");
                keys.insert(name.clone());
                let mut changed = whole.clone();
                changed.pointer_mut(pointer).unwrap()[&key] = value;
                let Ok(changed) = serde_json::from_value::<config::Worker>(changed) else { continue };
                // The name is what a worker is recognised by.
                if changed == worker || changed.label() != worker.label() || key == "handler" {
                    continue;
                }
                let live = of_worker(std::slice::from_ref(&worker), &changed, false) == PartChange::Stays;
                let effect = if live { ChangeEffect::Live } else { ChangeEffect::Part };
                assert_eq!(change_effect(&name), Some(effect), "{name}");
                seen.insert(name);
            }
        }
        let untried: Vec<_> = keys.difference(&seen).map(String::as_str).collect();
        assert_eq!(untried, ["workers[].group", "workers[].handler", "workers[].name", "workers[].queue"]);
    }

    #[test]
    fn a_program_is_restarted_when_other_variables_hold_secrets() {
        let old = worker("handler: {command: [/bin/true]}");
        let mut new = old.clone();
        assert_eq!(Plan::between(&old, &new).workers, [PartChange::Stays]);
        new.secret_variables.insert("TOKEN".to_owned());
        assert_eq!(Plan::between(&old, &new).workers, [PartChange::Restarts]);
    }

    #[test]
    fn a_publisher_is_known_by_its_address() {
        let publishers = |list: &str| config(&format!("publishers: [{list}]"));
        let old = publishers(
            "{listen: '127.0.0.1:1', queue: a}, {listen: '127.0.0.1:0', queue: b}, {listen: '127.0.0.1:0', queue: c}",
        );
        let new = publishers(
            "{listen: '127.0.0.1:0', queue: b}, {listen: '127.0.0.1:0', queue: d}, {listen: '127.0.0.1:2', queue: a}",
        );
        let changes = [PartChange::Stays, PartChange::Restarts, PartChange::Starts];
        assert_eq!(Plan::between(&old, &new).publishers, changes);
        let with = |token: &str| publishers(&format!("{{listen: '127.0.0.1:1', queue: a{token}}}"));
        for (before, after, change) in [
            (", token: x", ", token: y", PartChange::Stays),
            ("", ", token: y", PartChange::Restarts),
            (", token: x", "", PartChange::Restarts),
        ] {
            assert_eq!(Plan::between(&with(before), &with(after)).publishers, [change], "{before} {after}");
        }
    }

    #[test]
    fn an_outbox_with_other_settings_is_another_one() {
        let outbox =
            |millis| Outbox { poll_interval: std::time::Duration::from_millis(millis).into(), ..Outbox::default() };
        let (old, new) = ([outbox(1), outbox(2)], [outbox(2), outbox(2), outbox(1)]);
        assert_eq!(of_outboxes(&old, &new), [PartChange::Stays, PartChange::Starts, PartChange::Stays]);
    }
}
