//! `queue list`, `group list`, `stats`, `top` and `peek`, against a server in another process.

use serde_json::{Value, json};

use super::{Program, Running};

/// A server whose queue `orders` has five messages and a delayed one; of the group `billing`, one is leased.
fn setup() -> (Program, Running, String) {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
    dms(&["queue", "create", "orders", "--max-consume-count", "2", "--group", "billing", "--group", "shipping"]);
    dms(&["queue", "create", "empty"]);
    dms(&["send", "orders", "1", "2", "3", "4", r#"{"id": 1e3}"#, "--tag", "red", "--attribute", "tenant=7"]);
    dms(&["send", "orders", "later", "--delay", "1h"]);
    dms(&["receive", "orders", "billing", "--max", "1", "--no-ack", "--ack-wait", "300s"]);
    (program, server, url)
}

#[test]
fn queues_and_groups_are_seen_at_a_glance() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    let table = dms(&["queue", "list"]).ok();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        ["QUEUE/GROUP", "BACKLOG", "FLIGHT", "DELAYED", "DEAD", "OLDEST", "POLLS", "IN/S", "OUT/S"],
        "{table}"
    );
    assert_eq!(
        (&lines[1][..3], &lines[2][..5]),
        (&["empty", "0", "-"][..], &["orders/billing", "4", "1", "1", "0"][..])
    );
    assert!(table.lines().all(|line| line.len() <= 80), "{table}");

    let queues = dms(&["-o", "json", "queue", "list"]).json();
    let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["empty", "orders"]);
    let orders = &queues[1];
    for (member, value) in [("backlog", 9), ("in_flight", 1), ("delayed", 1), ("dead", 0), ("consumers_waiting", 0)] {
        assert_eq!(orders[member], value, "{member}: {orders}");
    }
    assert!(orders["in_per_second"].as_f64().unwrap() > 0.0 && orders["oldest_age_ms"].is_u64(), "{orders}");
    assert_eq!((&orders["groups"][0]["backlog"], &orders["groups"][0]["total"]), (&json!(4), &json!(6)));

    let groups = dms(&["group", "list", "orders"]).ok();
    let billing: Vec<&str> = groups.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(billing[..7], ["billing", "4", "1", "1", "6", "0", "0"], "{groups}");
    let shown = dms(&["queue", "show", "orders"]).ok();
    assert!(shown.contains(orders["groups"][0]["id"].as_str().unwrap()), "{shown}");

    let snapshot = dms(&["top"]).ok();
    assert!(snapshot.contains("2 queues  backlog 9  in flight 1  dead 0"), "{snapshot}");
    assert!(snapshot.find("orders/shipping") < snapshot.find("orders/billing"), "the largest first: {snapshot}");
    assert!(!snapshot.contains('\u{1b}'), "{snapshot:?}");
}

#[test]
fn a_group_is_shown_in_detail_by_its_names_or_ids() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    let stats = dms(&["-o", "json", "stats", "orders", "billing"]).json();
    assert_eq!((&stats["backlog"], &stats["in_flight"], &stats["queue"]), (&json!(4), &json!(1), &json!("orders")));
    let (queue, group) = (stats["queue_id"].as_str().unwrap(), stats["id"].as_str().unwrap());
    let text = dms(&["stats", queue, group]).ok();
    assert!(text.contains("backlog            4\nin flight          1\n"), "{text}");
    assert!(text.contains("state              messages are leased, and none was acknowledged lately"), "{text}");

    for args in [&["stats", "ordres", "billing"][..], &["peek", "ordres", "billing"], &["group", "list", "Orders"]] {
        let error = dms(args).failed(1);
        assert!(error.contains("did you mean \"orders\"?"), "{error}");
    }
    let error = dms(&["stats", "orders", "biling"]).failed(1);
    assert!(error.contains("there is no consumer group \"biling\"; did you mean \"billing\"?"), "{error}");
}

#[test]
fn messages_are_peeked_as_lines_that_can_be_sent() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    let read = |text: String| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let all = read(dms(&["peek", "orders", "billing"]).ok());
    let states: Vec<_> = all.iter().map(|line| line["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["leased", "available", "available", "available", "available", "delayed"]);
    assert!(all[0]["left_ms"].as_u64().is_some_and(|left| left <= 300_000), "{}", all[0]);
    assert_eq!((&all[1]["attributes"], &all[1]["tags"]), (&json!({"tenant": 7}), &json!(["red"])));

    let leased = all[0]["id"].as_str().unwrap();
    let shown = dms(&["message", "show", leased]).ok();
    let attempts: Vec<_> = shown.split("\n\n").nth(1).unwrap().lines().collect();
    let [head, attempt] = attempts[..] else { panic!("{shown}") };
    assert!(head.starts_with("GROUP") && head.ends_with("END"), "{shown}");
    let attempt: Vec<_> = attempt.split_whitespace().collect();
    let &[group, number, began, lasted, ..] = &attempt[..] else { panic!("{shown}") };
    assert_eq!(
        (group, number, lasted, attempt[4..7].join(" ")),
        ("billing", "1", "-", "leased for another".to_owned())
    );
    assert!(began.starts_with("20") && began.ends_with('Z'), "{shown}");
    let waiting = dms(&["message", "show", all[1]["id"].as_str().unwrap()]).ok();
    assert!(!waiting.contains("ATTEMPT"), "{waiting}");

    let some = dms(&["peek", "orders", "billing", "--max", "1", "--match-body", "/id=1000"]).ok();
    assert_eq!(some, "", "numbers are compared by their text");
    let some = dms(&["peek", "orders", "billing", "--max", "1", "--match-body", "/id=1e3"]).ok();
    assert!(some.starts_with(r#"{"body":{"id": 1e3},"attributes":{"tenant":7},"#), "byte for byte: {some}");
    assert_eq!(read(dms(&["peek", "orders", "billing", "--max", "2", "--from", "3"]).ok())[0]["sequence"], 3);
    program.run_with(&["--endpoint", &url, "send", "empty", "-"], &some).ok();

    let stats = dms(&["-o", "json", "stats", "orders", "billing"]).json();
    assert_eq!((&stats["backlog"], &stats["in_flight"]), (&json!(4), &json!(1)), "nothing was leased");
    assert_eq!(dms(&["peek", "orders", "billing", "--dead-letters"]).ok(), "");
}
