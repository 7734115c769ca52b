//! `queue move` and `queue copy`.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Program, Running};

/// A server whose queue `orders` has six messages, three of them with `region=eu`, and the groups `billing` and `shipping`.
fn setup() -> (Program, Running, String) {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
    dms(&["queue", "create", "orders", "--group", "billing", "--group", "shipping"]);
    dms(&["queue", "create", "target", "--group", "g"]);
    for (region, body) in [("eu", "1"), ("us", "2"), ("eu", "3"), ("us", "4"), ("eu", "5"), ("us", "6")] {
        dms(&["send", "orders", body, "--attribute", &format!("region={region}"), "--tag", region]);
    }
    (program, server, url)
}

/// The bodies and attributes of the messages of a group.
fn peek(program: &Program, url: &str, queue: &str, group: &str) -> Vec<(Value, Value)> {
    let lines = program.run(&["--endpoint", url, "peek", queue, group, "--max", "100"]).ok();
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(line).map(|line| (line["body"].clone(), line["attributes"].clone())).collect()
}

#[test]
fn a_move_takes_the_backlog_of_one_group() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    let error = dms(&["queue", "move", "orders", "target"]).failed(2);
    assert!(error.contains("name one of billing, shipping with --group"), "{error}");
    let error = dms(&["queue", "move", "orders", "orders", "--group", "billing"]).failed(2);
    assert!(error.contains("the source and the target"), "{error}");

    let dry = dms(&["-o", "json", "queue", "move", "orders", "target", "--group", "billing", "--dry-run"]).json();
    assert_eq!((&dry["moved"], &dry["dry_run"]), (&json!(6), &json!(true)));
    let some = dms(&["-o", "json", "queue", "move", "orders", "target", "--group", "billing", "--match", "region=eu"]);
    let some = some.json();
    assert_eq!((&some["moved"], &some["filtered"], &some["doubled"]), (&json!(3), &json!(3), &json!(0)));
    let moved = peek(&program, &url, "target", "g");
    let moved: Vec<_> = moved.iter().map(|(body, attributes)| (body, &attributes["region"])).collect();
    let eu = json!("eu");
    assert_eq!(moved, [(&json!(1), &eu), (&json!(3), &eu), (&json!(5), &eu)], "unchanged, in order");
    let left: Vec<Value> = peek(&program, &url, "orders", "billing").into_iter().map(|(body, _)| body).collect();
    assert_eq!(left, [2, 4, 6]);
    assert_eq!(peek(&program, &url, "orders", "shipping").len(), 6, "another group keeps its messages");
    assert!(dms(&["queue", "move", "orders", "target", "--group", "billing"]).ok().starts_with("3 moved,"));
}

/// The README exports such a variable.
#[test]
fn a_variable_that_names_the_source_does_not_name_the_target() {
    let (program, _server, url) = setup();
    let other = program.serve(&[]);
    let to = other.url("serving on ");
    program.run(&["--endpoint", &to, "queue", "create", "orders"]).ok();
    let file = program.file("new-server.yaml", &format!("dms: {{endpoint: '{to}'}}\n"));
    let mut moving =
        program.command(&["queue", "move", "orders", "orders", "--group", "billing", "--to-config", &file]);
    let moved = super::Output::of(moving.env("DMS_WORKER_DMS__ENDPOINT", &url).output().unwrap());
    assert!(moved.ok().starts_with("6 moved,"));
}

#[test]
fn a_copy_to_another_server_leaves_everything_as_it_is() {
    let (program, _server, url) = setup();
    let other = program.serve(&[]);
    let other_url = other.url("serving on ");
    program.run(&["--endpoint", &other_url, "queue", "create", "orders", "--group", "g"]).ok();
    let copy = ["queue", "copy", "orders", "orders", "--to-endpoint", &other_url, "--tag", "us"];
    let report = program.run(&[&["-o", "json", "--endpoint", &url][..], &copy].concat()).json();
    assert_eq!((&report["copied"], &report["filtered"]), (&json!(3), &json!(3)));
    let copied: Vec<Value> = peek(&program, &other_url, "orders", "g").into_iter().map(|(body, _)| body).collect();
    assert_eq!(copied, [2, 4, 6]);
    assert_eq!(peek(&program, &url, "orders", "billing").len(), 6);
    let groups = program.run(&["-o", "json", "--endpoint", &url, "group", "list", "orders"]).json();
    assert_eq!(groups.as_array().unwrap().len(), 2, "its own group is gone: {groups}");
}

#[test]
fn a_copy_that_was_stopped_continues_where_its_group_stands() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    // More than one batch, because the rate holds between batches.
    let more: Vec<String> = (7..=26).map(|body| body.to_string()).collect();
    dms(&[vec!["send", "orders"], more.iter().map(String::as_str).collect()].concat()).ok();
    let copy = ["--endpoint", &url, "queue", "copy", "orders", "target", "--rate", "1/s"];
    let mut running = program.command(&copy).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while peek(&program, &url, "target", "g").is_empty() {
        assert!(running.try_wait().unwrap().is_none(), "it ended");
    }
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    let ended = running.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("not finished: the same command continues"), "{ended:?}");
    let before = peek(&program, &url, "target", "g").len();
    assert!((1..26).contains(&before), "{before}");
    let groups = dms(&["-o", "json", "group", "list", "orders"]).json();
    assert!(groups[2]["name"].as_str().unwrap().starts_with("copy-"), "{groups}");
    dms(&["queue", "copy", "orders", "target"]).ok();
    let copied = peek(&program, &url, "target", "g").into_iter().map(|(body, _)| body.as_u64().unwrap());
    let copied: BTreeSet<u64> = copied.collect();
    assert_eq!(copied, (1..=26).collect());
    assert_eq!(dms(&["-o", "json", "group", "list", "orders"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn the_maximum_counts_copies_and_holds_for_a_dry_run() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["-o", "json", "--endpoint", &url], args].concat()).json();
    // The first message that matches is the second one.
    let us = ["--match", "region=us", "--max", "2"];
    let dry = dms(&[&["queue", "copy", "orders", "target", "--dry-run"], &us[..]].concat());
    assert_eq!((&dry["copied"], &dry["dry_run"]), (&json!(2), &json!(true)), "{dry}");
    let dry = dms(&["queue", "move", "orders", "target", "--group", "billing", "--dry-run", "--max", "4"]);
    assert_eq!(dry["moved"], json!(4), "{dry}");
    let copied = dms(&[&["queue", "copy", "orders", "target"], &us[..]].concat());
    assert_eq!(copied["copied"], json!(2), "{copied}");
    let bodies: Vec<Value> = peek(&program, &url, "target", "g").into_iter().map(|(body, _)| body).collect();
    assert_eq!(bodies, [2, 4]);
}

/// What a killed run has leased is not visible, and must not be taken for done.
#[test]
fn a_copy_waits_for_what_a_killed_run_has_leased() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    assert!(dms(&["queue", "copy", "orders", "target", "--max", "1"]).stderr.contains("not finished"));
    let groups = dms(&["-o", "json", "group", "list", "orders"]).json();
    let group = groups[2]["name"].as_str().unwrap();
    // As a run that was killed after its poll.
    dms(&["receive", "orders", group, "--wait", "1s"]).ok();
    let command = ["--endpoint", &url, "queue", "copy", "orders", "target"];
    let mut continued = program.command(&command).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stderr = BufReader::new(continued.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("an earlier run still leases messages") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    Command::new("kill").args(["-INT", &continued.id().to_string()]).status().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    continued.wait().unwrap();
    assert!(said.contains("not finished"), "{said}");
    assert_eq!(dms(&["-o", "json", "group", "list", "orders"]).json().as_array().unwrap().len(), 3, "it stays");
}
