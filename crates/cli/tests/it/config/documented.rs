//! `config.yaml` at the top of the repository names every key of the code with the code's default.

use std::{collections::BTreeMap, fs, path::Path};

use dms_worker_cli::config::{
    AccessKey, AdminSection, Auth, ClusterTls, CommandHandler, Config, Deduplicate, HttpHandler, Iam, LogHandler, Mqs,
    Outbox, Postgres, PostgresKeys, Project, Publisher, QueueSpec, Request, Rights, Schedule, ServerAuth, Tls, User,
    Worker, load,
};
use serde_json::Value;

/// A line of the file: `key: value  # comment`, possibly commented out.
#[derive(Debug)]
struct Line {
    key: String,
    value: String,
    comment: String,
    left_out: bool,
}

pub(super) fn text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("config.yaml")).unwrap()
}

/// The lines of each section, by the section's path; list items are `[]`.
fn sections() -> BTreeMap<String, Vec<Line>> {
    let mut sections: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    for raw in text().lines() {
        let Some(mut line) = parse(raw) else { continue };
        let indent = raw.len() - raw.trim_start().len();
        let item = raw.trim_start().trim_start_matches('#').starts_with("- ");
        let depth = if item { indent + 2 } else { indent };
        open.retain(|(at, _)| *at < depth && !(item && *at >= indent));
        if item {
            open.retain(|(at, _)| *at < indent);
            open.push((indent, "[]".to_owned()));
        }
        let parent: Vec<_> = open.iter().map(|(_, key)| key.as_str()).collect();
        let key = line.key.clone();
        line.value = line.value.trim().to_owned();
        sections.entry(parent.join(".")).or_default().push(line);
        open.push((depth, key));
    }
    sections
}

fn parse(raw: &str) -> Option<Line> {
    let text = raw.trim_start();
    let left_out = text.starts_with('#');
    let text = text.strip_prefix('#').unwrap_or(text);
    let text = text.strip_prefix("- ").unwrap_or(text);
    let (key, rest) = text.split_once(':')?;
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let (value, comment) = rest.split_once(" #").unwrap_or((rest, ""));
    is_key.then(|| Line { key: key.to_owned(), value: value.to_owned(), comment: comment.to_owned(), left_out })
}

/// The sections of the code with their defaults.
fn defaults() -> Vec<(&'static str, Value)> {
    fn json(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }
    let config = json(Config::default());
    let worker = json(Worker::default());
    let project = json(Project::default());
    vec![
        ("dms", config["dms"].clone()),
        ("dms.content", config["dms"]["content"].clone()),
        ("dms.auth", json(Auth::default())),
        ("dms.auth.iam", json(Iam::default())),
        ("server", config["server"].clone()),
        ("server.tls", json(Tls::default())),
        ("server.admin", json(AdminSection::default())),
        ("server.admin.tls", json(Tls::default())),
        ("server.admin_tls", json(Tls::default())),
        ("publishers.[].tls", json(Tls::default())),
        ("admin.tls", json(Tls::default())),
        ("server.mqs", json(Mqs::default())),
        ("server.mqs.tls", json(Tls::default())),
        ("server.postgres", json(Postgres::default())),
        ("server.cluster", config["server"]["cluster"].clone()),
        ("server.cluster.tls", json(ClusterTls::default())),
        ("server.quotas", config["server"]["quotas"].clone()),
        ("server.limits", config["server"]["limits"].clone()),
        ("server.auth", json(ServerAuth::default())),
        ("server.auth.access_keys.[]", json(AccessKey::default())),
        ("server.auth.access_keys.[].rights", json(Rights::default())),
        ("server.auth.users.[]", json(User::default())),
        ("server.auth.users.[].rights", json(Rights::default())),
        ("server.queues.[]", json(QueueSpec::default())),
        ("server.schedules.[]", json(Schedule::default())),
        ("server.projects.[].auth", json(ServerAuth::default())),
        ("server.projects.[].quotas", project["quotas"].clone()),
        ("server.projects.[]", project),
        ("workers.[].deduplicate", json(Deduplicate::default())),
        ("workers.[].handler", worker["handler"].clone()),
        ("workers.[].handler.http", json(HttpHandler::default())),
        ("workers.[].handler.command", json(CommandHandler::default())),
        ("workers.[].handler.log", json(LogHandler::default())),
        ("workers.[]", worker),
        ("outboxes.[].postgres", json(PostgresKeys::default())),
        ("outboxes.[]", json(Outbox::default())),
        ("publishers.[]", json(Publisher::default())),
        ("limits", config["limits"].clone()),
        ("reload", config["reload"].clone()),
        ("admin", config["admin"].clone()),
        ("shutdown", config["shutdown"].clone()),
        ("log", config["log"].clone()),
        ("", config),
    ]
}

#[test]
fn the_file_runs_as_it_is() {
    let config = load(&Request::new().file(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join("config.yaml")))
        .unwrap()
        .config;
    assert!(config.dms.is_embedded());
    assert!(config.workers[0].handler.log.is_some());
}

#[test]
fn every_key_is_documented_and_none_is_stale() {
    let mut documented = sections();
    for (section, defaults) in defaults() {
        let lines = documented.remove(section).unwrap_or_else(|| panic!("config.yaml has no section `{section}`"));
        let mut written: Vec<_> = lines.iter().map(|line| line.key.as_str()).collect();
        let mut known: Vec<_> = defaults.as_object().unwrap().keys().map(String::as_str).collect();
        written.sort_unstable();
        known.sort_unstable();
        assert_eq!(written, known, "keys of section `{section}`: config.yaml on the left, the code on the right");
    }
    assert!(documented.is_empty(), "sections that the code does not have: {documented:?}");
}

#[test]
fn every_documented_default_is_the_default_of_the_code() {
    let documented = sections();
    for (section, defaults) in defaults() {
        for line in documented[section].iter().filter(|line| line.left_out) {
            let name = format!("{section}.{}", line.key);
            let default = &defaults[&line.key];
            let none = default.is_null() || default == "" || *default == serde_json::json!([]);
            if line.comment.contains("no default") {
                assert!(none, "{name} has a default: {default}");
            } else if !line.value.is_empty() {
                let expected = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
                assert_eq!(line.value, expected, "{name}: config.yaml on the left, the code on the right");
            }
        }
    }
}

/// The file with every key in it.
pub(super) fn uncommented() -> String {
    let keys = |line: &str| match parse(line) {
        Some(found) if found.left_out => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    text().lines().map(keys).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_file_with_every_key_uncommented_is_of_the_right_shape() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, uncommented()).unwrap();
    let error = load(&Request::new().file(file)).expect_err("secrets are given twice");
    let shape = ["unknown key", "is not allowed", "is needed", "not a list", "no unit", "duplicate", "mapping"];
    for problem in error.problems() {
        assert!(!shape.iter().any(|word| problem.message.contains(word)), "{problem}");
    }
}
