//! Configuration: layers, mistakes and their messages, and that `config.yaml` is not stale.

mod bounds;
mod changes;
mod credentials;
mod documented;
mod encodings;
mod layers;
mod mistakes;
mod mqs;
mod schema;

use dms_worker_cli::config::{ConfigError, Loaded, Request, load};

/// Loads `yaml` as a file called `config.yaml`, with these variables around it.
fn read(yaml: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, yaml).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(&Request::new().file(file).variables(variables))
}

/// The mistakes of `yaml`, each as it is printed, with the directory of the file cut off.
fn mistakes(yaml: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let error = read(yaml, variables).expect_err("the configuration passed");
    let cut = |text: String| match text.split_once("config.yaml") {
        Some((_, rest)) if text.starts_with('/') => format!("config.yaml{rest}"),
        _ => text,
    };
    error.problems().iter().map(|problem| cut(problem.to_string())).collect()
}

/// A worker that passes every check, and the server that it needs; `extra` is set in the worker.
fn worker(extra: &str) -> String {
    format!(
        "server:\n  queues: [{{name: q, groups: [g], max_consume_count: 3}}]\nworkers:\n  - queue: q\n    group: g\n    handler: {{log: {{}}}}\n    {extra}\n"
    )
}
