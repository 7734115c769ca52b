//! A configuration file that changes under a running process.

use std::{fs, os::unix::fs::symlink};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Program, Running};

/// A sidecar with these workers of the queues `a` and `b`.
fn yaml(workers: &[&str], extra: &str) -> String {
    let worker = |queue: &&str| format!("  - {{queue: {queue}, group: g, handler: {{log: {{}}}}}}\n");
    let workers: String = workers.iter().map(worker).collect();
    format!(
        "server: {{listen: '127.0.0.1:0', queues: [{{name: a, groups: [g]}}, {{name: b, groups: [g]}}]}}\nadmin: {{listen: '127.0.0.1:0'}}\nworkers:\n{workers}{extra}"
    )
}

fn get(process: &Running, path: &str) -> String {
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}{path}", process.url("admin on "))).header("Sec-Fetch-Site", "same-origin");
    request.send().unwrap().text().unwrap()
}

fn status(process: &Running) -> Value {
    serde_json::from_str(&get(process, "/status")).unwrap()
}

fn names(status: &Value) -> Vec<&str> {
    status["workers"].as_array().unwrap().iter().map(|worker| worker["name"].as_str().unwrap()).collect()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_that_is_replaced_is_applied_and_a_broken_or_deleted_one_is_not() {
    let program = Program::new();
    let first = yaml(&["a"], "");
    let file = program.file("config.yaml", &first);
    let mut process = program.start(&["run", "-c", &file]);
    let said = status(&process);
    assert_eq!((names(&said), &said["configuration"]["hash"]), (vec!["a/g"], &sha256(&first).into()));
    assert_eq!((&said["configuration"]["watched"], &said["configuration"]["last_error"]), (&true.into(), &Value::Null));

    // As editors do: a new file, renamed over the old one.
    let second = yaml(&["a", "b"], "limits: {in_flight: 9}\n");
    fs::rename(program.file("config.yaml.new", &second), &file).unwrap();
    process.until("the configuration was read again");
    let said = status(&process);
    assert_eq!((names(&said), &said["configuration"]["hash"]), (vec!["a/g", "b/g"], &sha256(&second).into()));
    assert_eq!(said["configuration"]["pending_restart"], serde_json::json!([]));
    // The dashboard shows what is in force: the second worker, and the limit.
    let page = get(&process, "/ui/config");
    assert!(page.contains("workers[1].queue") && page.contains("<code>limits.in_flight</code>"), "{page}");
    assert!(page.contains("config.yaml:") && page.contains(">default</span>"), "where it was set: {page}");
    let since = said["configuration"]["loaded_at"].as_str().unwrap();
    assert!(page.contains("<code>9</code>") && page.contains(&since[..19]), "{since}: {page}");

    // Half-written: it is no YAML. Then two mistakes.
    program.file("config.yaml", &second[..second.len() - 10]);
    process.until("was rejected");
    program.file("config.yaml", &yaml(&["a"], "limts: {}\nshutdown: {grace: soon}\n"));
    process.until("was rejected");
    let said = status(&process);
    let error = said["configuration"]["last_error"]["error"].as_str().unwrap();
    assert!(error.contains("2 mistakes") && error.contains("limts") && error.contains("soon"), "{error}");
    assert_eq!((names(&said).len(), &said["configuration"]["hash"]), (2, &sha256(&second).into()));
    let metrics = get(&process, "/metrics");
    assert!(metrics.contains("dms_worker_config_reload_last_successful 0"), "{metrics}");
    assert!(metrics.contains("dms_worker_config_reload_attempts_total{result=\"failure\"} 2"), "{metrics}");

    for broken in ["deleted", "empty"] {
        match broken {
            "deleted" => fs::remove_file(&file).unwrap(),
            _ => drop(program.file("config.yaml", "\n")),
        }
        process.until("was rejected");
        assert_eq!(names(&status(&process)).len(), 2, "{broken}");
    }

    let third = yaml(&["b"], "");
    program.file("config.yaml", &third);
    process.until("the configuration was read again");
    let said = status(&process);
    assert_eq!((names(&said), &said["configuration"]["last_error"]), (vec!["b/g"], &Value::Null));
    assert_eq!(said["configuration"]["pending_restart"], serde_json::json!([]));
    assert!(get(&process, "/metrics").contains("dms_worker_config_reload_last_successful 1"));
    process.signal("TERM");
    let (ended, log) = process.wait();
    assert_eq!(ended.code(), Some(0), "{log}");
    let errors: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let errors = errors.iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(errors, 4, "one line for each broken content: {log}");
}

/// As Kubernetes mounts a ConfigMap: the file is a link into a folder behind a link, which is replaced.
#[test]
fn a_swapped_symbolic_link_is_noticed() {
    let program = Program::new();
    let path = |name: &str| program.dir().join(name);
    for (version, workers) in [("v1", &["a"] as &[_]), ("v2", &["a", "b"])] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("config.yaml"), yaml(workers, "")).unwrap();
    }
    symlink("v1", path("..data")).unwrap();
    symlink("..data/config.yaml", path("config.yaml")).unwrap();
    let mut process = program.start(&["run"]);
    symlink("v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    fs::remove_dir_all(path("v1")).unwrap();
    process.until("the configuration was read again");
    assert_eq!(names(&status(&process)), ["a/g", "b/g"]);
}

#[test]
fn sighup_applies_a_file_that_is_not_watched() {
    let program = Program::new();
    let unwatched = "reload: {watch: false}\n";
    program.file("config.yaml", &yaml(&["a"], unwatched));
    let mut process = program.start(&["run"]);
    program.file("config.yaml", &yaml(&["b"], unwatched));
    process.signal("HUP");
    process.until("the configuration was read again");
    let said = status(&process);
    assert_eq!((names(&said), &said["configuration"]["watched"]), (vec!["b/g"], &false.into()));
    // The log filter, the watch itself and the grace period change at once.
    program.file("config.yaml", &yaml(&["b"], "reload: {watch: true}\nshutdown: {grace: 1s}\nlog: {filter: debug}\n"));
    process.signal("HUP");
    process.until("the configuration was read again");
    program.file("config.yaml", &yaml(&["a"], ""));
    process.until("the configuration was read again");
    assert_eq!(names(&status(&process)), ["a/g"]);
    process.signal("TERM");
    let (_, log) = process.wait();
    assert!(log.contains("\"level\":\"DEBUG\"") && !log.contains("need a restart"), "{log}");
}

#[test]
fn a_server_creates_the_queues_that_were_added_and_names_what_needs_a_restart() {
    let program = Program::new();
    let server = |queues: &str, extra: &str| {
        format!("server: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0', queues: [{queues}]{extra}}}\n")
    };
    let file = program.file("server.yaml", &server("{name: a, groups: [g]}", ""));
    let mut process = program.start(&["serve", "-c", &file]);
    program.file("server.yaml", &server("{name: b, groups: [g, h]}", ", region: elsewhere, fifo_blocks: false"));
    process.until("these changes need a restart");
    let url = process.url("serving on ");
    let groups = program.run(&["--endpoint", &url, "--output", "json", "group", "list", "b"]).ok();
    assert!(groups.contains("\"g\"") && groups.contains("\"h\""), "{groups}");
    assert!(program.run(&["--endpoint", &url, "queue", "list"]).ok().contains('a'), "none is deleted");
    let metrics = get(&process, "/metrics");
    assert!(metrics.contains("dms_worker_config_reload_pending_restart 2"), "{metrics}");
    process.signal("TERM");
    let (_, log) = process.wait();
    assert!(log.contains("\"keys\":\"server.fifo_blocks, server.region\""), "{log}");
}

/// What exists already stays, unless it is older than the new retention.
#[test]
fn a_server_takes_quotas_retention_and_limits_while_it_runs() {
    let program = Program::new();
    let server = |settings: &str| format!("server: {{listen: '127.0.0.1:0', admin: '127.0.0.1:0', {settings}}}\n");
    let file = program.file("server.yaml", &server("quotas: {queues: 2}, queues: [{name: a, groups: [g]}]"));
    let mut process = program.start(&["serve", "-c", &file]);
    let url = process.url("serving on ");
    let run = |args: &[&str]| program.run(&[&["--endpoint", &url, "-o", "json"], args].concat());
    run(&["queue", "create", "b"]).ok();
    assert!(run(&["queue", "create", "c"]).failed(1).contains("quota"));
    assert!(get(&process, "/metrics").contains("queue=\"a\""));
    let own = "{name: a, groups: [g], retention: 2h}, {name: c, retention: 3h, delete_when_settled: true}";
    let limits = "limits: {metrics_groups: 0, polls_per_group: 5, leased_bytes: 1048576}";
    program.file(
        "server.yaml",
        &server(&format!(
            "quotas: {{queues: 4}}, retention: 1h, {limits}, new_group_starts: end, failure_counting: batch, create_delay: 10ms, queues: [{own}]"
        )),
    );
    process.until("server.retention is shorter now");
    process.until("the configuration was read again");
    run(&["queue", "create", "d"]).ok();
    assert!(run(&["queue", "create", "e"]).failed(1).contains("quota"));
    let kept = |queue: &str| {
        let shown = run(&["queue", "show", queue]).json();
        (shown["retention_ms"].as_u64().unwrap() / 3_600_000, shown["delete_when_settled"].as_bool().unwrap())
    };
    assert_eq!(["a", "b", "c", "d"].map(kept), [(2, false), (1, false), (3, true), (1, false)]);
    assert!(!get(&process, "/metrics").contains("queue=\"a\""));
    // Back: the queue's own policy is gone, too.
    program.file("server.yaml", &server("queues: [{name: a, groups: [g]}], quotas: {queues: 4}"));
    process.until("the configuration was read again");
    assert_eq!(["a", "c"].map(kept), [(72, false), (72, false)]);
    process.signal("TERM");
    let (_, log) = process.wait();
    assert!(!log.contains("need a restart"), "{log}");
}

#[test]
fn a_changed_secret_of_an_application_is_used_without_a_signal() {
    let program = Program::new();
    program.file("key", "one");
    let worker = format!(
        "server: {{listen: '127.0.0.1:0', queues: [{{name: a, groups: [g]}}]}}\nworkers:\n  - {{queue: a, group: g, handler: {{http: {{url: 'http://127.0.0.1:9/', header_files: {{x-key: '{}'}}}}}}}}\n",
        program.dir().join("key").display()
    );
    let file = program.file("config.yaml", &worker);
    let mut process = program.start(&["run", "-c", &file]);
    program.file("key", "two");
    process.until("the new secrets are in use");
    process.signal("TERM");
    let (_, log) = process.wait();
    assert!(!log.contains("worker draining"), "{log}");
}
