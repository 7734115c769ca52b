//! The differences between two configurations, and whether each takes effect at once or needs a restart.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::schema::config::Config;

/// When a changed key takes effect in a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeEffect {
    /// At once, without a restart of anything.
    Live,
    /// At once: its worker, publisher or outbox is stopped gracefully and started again. The others continue.
    Part,
    /// When the process is restarted.
    Process,
}

/// The effect of a change of each key. The longest entry that equals the key or is a prefix of it decides.
pub const CHANGE_EFFECTS: &[(&str, ChangeEffect)] = &[
    ("admin", ChangeEffect::Process),
    ("admin.read_token", ChangeEffect::Live),
    ("admin.read_token_file", ChangeEffect::Live),
    ("admin.token", ChangeEffect::Live),
    ("admin.token_file", ChangeEffect::Live),
    ("dms", ChangeEffect::Part),
    ("dms.auth", ChangeEffect::Live),
    ("dms.endpoint", ChangeEffect::Part),
    ("limits", ChangeEffect::Live),
    ("log.filter", ChangeEffect::Live),
    ("log.format", ChangeEffect::Process),
    ("on_worker_failure", ChangeEffect::Live),
    ("outboxes[]", ChangeEffect::Part),
    ("publishers[]", ChangeEffect::Part),
    ("publishers[].token", ChangeEffect::Live),
    ("publishers[].token_file", ChangeEffect::Live),
    ("reload", ChangeEffect::Live),
    ("server", ChangeEffect::Process),
    ("server.admin.read_token", ChangeEffect::Live),
    ("server.admin.read_token_file", ChangeEffect::Live),
    ("server.admin.token", ChangeEffect::Live),
    ("server.admin.token_file", ChangeEffect::Live),
    ("server.admin_token", ChangeEffect::Live),
    ("server.admin_token_file", ChangeEffect::Live),
    ("server.auth", ChangeEffect::Live),
    ("server.auth.reject_replays", ChangeEffect::Process),
    ("server.auth.require_signed_host", ChangeEffect::Process),
    ("server.create_delay", ChangeEffect::Live),
    ("server.failure_counting", ChangeEffect::Live),
    ("server.fifo_blocks", ChangeEffect::Process),
    ("server.limits", ChangeEffect::Process),
    ("server.limits.leased_bytes", ChangeEffect::Live),
    ("server.limits.metrics_groups", ChangeEffect::Live),
    ("server.limits.polls_per_group", ChangeEffect::Live),
    ("server.new_group_starts", ChangeEffect::Live),
    ("server.projects[].auth", ChangeEffect::Live),
    ("server.projects[].auth.reject_replays", ChangeEffect::Process),
    ("server.projects[].auth.require_signed_host", ChangeEffect::Process),
    ("server.projects[].queues[]", ChangeEffect::Live),
    ("server.projects[].quotas", ChangeEffect::Live),
    ("server.projects[].schedules", ChangeEffect::Live),
    ("server.queues[]", ChangeEffect::Live),
    ("server.quotas", ChangeEffect::Live),
    ("server.retention", ChangeEffect::Live),
    ("server.schedules", ChangeEffect::Live),
    ("shutdown.grace", ChangeEffect::Live),
    ("workers[]", ChangeEffect::Part),
    ("workers[].concurrency", ChangeEffect::Live),
    ("workers[].handler.http.header_files", ChangeEffect::Live),
    ("workers[].handler.http.headers", ChangeEffect::Live),
    ("workers[].handler.http.signature_key", ChangeEffect::Live),
    ("workers[].handler.http.signature_key_file", ChangeEffect::Live),
    ("workers[].max_in_flight_bytes", ChangeEffect::Live),
    ("workers[].max_messages", ChangeEffect::Live),
    ("workers[].rate_limit", ChangeEffect::Live),
];

/// The effect of a change of `key`, which has `[]` for places in lists, as in `workers[].name`.
pub fn change_effect(key: &str) -> Option<ChangeEffect> {
    let above = |entry: &str| {
        key.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    };
    let found = CHANGE_EFFECTS.iter().filter(|(entry, _)| above(entry)).max_by_key(|(entry, _)| entry.len());
    found.map(|(_, effect)| *effect)
}

impl Config {
    /// The keys in which another configuration differs from this one, in the order of the sections. Where only a secret in a
    /// section differs, that section is named.
    pub(crate) fn changed_keys(&self, other: &Self) -> Vec<String> {
        let json = |config: &Self| serde_json::to_value(config).unwrap_or_default();
        let (old, new) = (json(self), json(other));
        let mut keys = Vec::new();
        for (section, same) in self.same_sections(other) {
            let before = keys.len();
            collect(section, &old[section], &new[section], &mut keys);
            if !same && keys.len() == before {
                keys.push(section.to_owned());
            }
        }
        keys
    }

    /// Whether each section is the same, secrets included.
    fn same_sections(&self, other: &Self) -> [(&'static str, bool); 11] {
        [
            ("dms", self.dms == other.dms),
            ("server", self.server == other.server),
            ("workers", self.workers == other.workers),
            ("on_worker_failure", self.on_worker_failure == other.on_worker_failure),
            ("limits", self.limits == other.limits),
            ("publishers", self.publishers == other.publishers),
            ("outboxes", self.outboxes == other.outboxes),
            ("admin", self.admin == other.admin),
            ("reload", self.reload == other.reload),
            ("shutdown", self.shutdown == other.shutdown),
            ("log", self.log == other.log),
        ]
    }
}

/// Adds the keys at and below `path` whose values differ.
fn collect(path: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                let value = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                collect(&format!("{path}.{name}"), &value(old), &value(new), keys);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (place, (old, new)) in old.iter().zip(new).enumerate() {
                collect(&format!("{path}[{place}]"), old, new, keys);
            }
        }
        _ => keys.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Secret, Worker};

    #[test]
    fn changed_keys_are_named_by_their_places() {
        let old = Config { workers: vec![Worker::default(), Worker::default()], ..Config::default() };
        let mut new = old.clone();
        assert_eq!(old.changed_keys(&new), Vec::<String>::new());
        new.server.listen = "127.0.0.1:1".parse().unwrap();
        new.server.limits.connections = 7;
        new.workers[1].concurrency = 7;
        new.reload.watch = false;
        assert_eq!(
            old.changed_keys(&new),
            ["server.limits.connections", "server.listen", "workers[1].concurrency", "reload.watch"]
        );
        new.workers.pop();
        assert!(old.changed_keys(&new).contains(&"workers".to_owned()));
    }

    #[test]
    fn a_changed_secret_names_its_section() {
        let with = |token: &str| {
            let mut config = Config::default();
            config.admin.token = Some(Secret::new(token));
            config
        };
        assert_eq!(with("one").changed_keys(&with("two")), ["admin"]);
        assert_eq!(Config::default().changed_keys(&with("two")), ["admin.token"]);
    }

    #[test]
    fn the_most_specific_entry_decides() {
        let cases = [
            ("server.listen", Some(ChangeEffect::Process)),
            ("server.auth.users[].password", Some(ChangeEffect::Live)),
            ("server.queues[].groups", Some(ChangeEffect::Live)),
            ("server.limits.connections", Some(ChangeEffect::Process)),
            ("server.limits.leased_bytes", Some(ChangeEffect::Live)),
            ("workers[].max_messages", Some(ChangeEffect::Live)),
            ("workers[].queue", Some(ChangeEffect::Part)),
            ("servers", None),
        ];
        for (key, effect) in cases {
            assert_eq!(change_effect(key), effect, "{key}");
        }
    }
}
