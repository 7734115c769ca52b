//! The commands of a client, against a server in another process.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use super::{Program, Running};

fn setup() -> (Program, Running, String) {
    let program = Program::new();
    let server = program.serve(&[]);
    let url = server.url("serving on ");
    (program, server, url)
}

#[test]
fn send_says_which_messages_were_there_already() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "reports"]).ok();
    let send = ["send", "reports", "{}", "--ids", "--deduplication-key", "nightly"];
    let first = dms(&send);
    assert!(first.stderr.contains("1 sent to reports\n"), "{}", first.stderr);
    let again = dms(&send);
    assert!(
        again.stderr.contains("1 sent to reports, 1 of them not stored again (same deduplication key)"),
        "{}",
        again.stderr
    );
    assert_eq!(first.ok(), again.ok(), "the id is that of the stored message");
    let told = dms(&[&["-o", "json"], &send[..]].concat()).json();
    assert_eq!((&told["sent"], &told["duplicates"]), (&1.into(), &1.into()), "{told}");
}

#[test]
fn queues_groups_and_tags_come_and_go() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    let id = dms(&["queue", "create", "orders", "--max-consume-count", "3", "--group", "billing"]).ok();
    let queues = dms(&["-o", "json", "queue", "list"]).json();
    assert_eq!(
        (&queues[0]["id"], &queues[0]["name"], &queues[0]["max_consume_count"]),
        (&id.trim().into(), &"orders".into(), &3.into())
    );
    dms(&["group", "create", "orders", "shipping"]).ok();
    let shown = dms(&["-o", "json", "queue", "show", "orders"]).json();
    let names: Vec<_> = shown["groups"].as_array().unwrap().iter().map(|group| group["name"].clone()).collect();
    assert_eq!(names, ["billing", "shipping"]);

    dms(&["tag", "add", "orders", "team=billing", "stage=prod"]).ok();
    dms(&["tag", "remove", "orders", "stage"]).ok();
    assert_eq!(dms(&["-o", "json", "tag", "list", "orders"]).json(), json!([{"key": "team", "value": "billing"}]));
    assert_eq!(dms(&["-o", "json", "tag", "project"]).json(), json!([{"key": "team", "values": ["billing"]}]));
    assert!(dms(&["quota"]).ok().starts_with("KIND"));

    let stderr = dms(&["queue", "delete", "orders"]).failed(2);
    assert!(stderr.contains("add --yes to confirm"), "{stderr}");
    dms(&["group", "delete", "orders", "shipping", "--yes"]).ok();
    dms(&["queue", "delete", "orders", "--yes"]).ok();
    assert_eq!(dms(&["-o", "json", "queue", "list"]).json(), json!([]));
    assert!(dms(&["queue", "show", "orders"]).failed(1).contains("there is no queue \"orders\""));
}

#[test]
fn lines_that_receive_prints_can_be_sent() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "a", "--group", "g"]).ok();
    dms(&["queue", "create", "b", "--group", "g"]).ok();
    let sent = dms(&["send", "a", "{\"id\": 1}", "text", "--tag", "red", "--attribute", "n=1", "--ids"]);
    let sent = sent.ok();
    let ids: Vec<&str> = sent.lines().collect();
    assert_eq!(ids.len(), 2, "one id per message");
    let lines = dms(&["receive", "--ack", "a", "g", "--wait", "1s"]).ok();
    let line = |body: &str, id: &str| {
        format!("{{\"body\":{body},\"attributes\":{{\"n\":1}},\"id\":\"{id}\",\"tags\":[\"red\"]}}\n")
    };
    assert_eq!(lines, line("{\"id\": 1}", ids[0]) + &line("\"text\"", ids[1]));
    assert_eq!(dms(&["receive", "--ack", "a", "g", "--wait", "1s"]).ok(), "", "what was printed is acknowledged");

    program.run_with(&["--endpoint", &url, "send", "b", "-"], &lines).ok();
    let kept = dms(&["receive", "b", "g", "--wait", "1s", "--max", "1"]).ok();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["body"], json!({"id": 1}));
    assert!(kept["handler"].is_string());

    let odd = "{\"body\":null,\"attributes\":{\"e\":1e3,\"z\":-0,\"i\":123456789012345678901234567890,\"n\":{\"a\":1,\"a\":2}}}\n";
    program.run_with(&["--endpoint", &url, "send", "a", "-"], odd).ok();
    assert_eq!(dms(&["receive", "--ack", "a", "g", "--wait", "1s"]).received(), odd, "byte for byte");
}

#[test]
fn receive_acknowledges_only_if_told() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g", "--max-consume-count", "2"]).ok();
    dms(&["send", "q", "1"]).ok();
    let looked = dms(&["receive", "q", "g", "--wait", "1s", "--ack-wait", "15s"]);
    assert!(looked.stderr.contains("1 message received, not acknowledged: redelivered after 15s"), "{}", looked.stderr);
    let handed: Value = serde_json::from_str(&looked.ok()).unwrap();
    let groups = dms(&["-o", "json", "group", "list", "q"]).json();
    assert_eq!(groups[0]["consumed_messages"], 0, "{groups}");
    assert!(handed["handler"].is_string());
}

/// A reader of ten lines that ends after three: the other seven are available at once, and have not failed.
#[test]
fn lines_that_nobody_read_are_not_acknowledged() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g", "--max-consume-count", "1"]).ok();
    let lines: String = (0..10).map(|n| format!("{{\"body\":{n}}}\n")).collect();
    program.run_with(&["--endpoint", &url, "send", "q", "-"], &lines).ok();

    let mut followed = program.command(&["--endpoint", &url, "receive", "q", "g", "--ack", "--follow"]);
    let mut followed = followed.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut head = BufReader::new(followed.stdout.take().unwrap());
    for n in 0..3 {
        let mut line = String::new();
        head.read_line(&mut line).unwrap();
        assert!(line.starts_with(&format!("{{\"body\":{n},")), "{line}");
    }
    drop(head);
    assert_eq!(followed.wait().unwrap().code(), Some(0));

    let rest = dms(&["receive", "q", "g", "--ack", "--wait", "1s"]).received();
    let mut rest: Vec<_> = rest.lines().collect();
    rest.sort_unstable();
    let unread: Vec<_> = lines.lines().skip(3).collect();
    assert_eq!(rest, unread);
}

#[test]
fn refused_lines_are_named_and_the_others_sent() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    let large = "x".repeat(600_000);
    let lines = format!(
        "{{\"body\":1}}\n{{\"x\":1}}\n\nnot json\n{{\"body\":\"{large}\"}}\n{{\"body\":2,\"tags\":[\"a b\"]}}\n{{\"body\":3}}\n"
    );
    let file = program.file("lines.jsonl", &lines);
    let output = dms(&["send", "q", "--file", &file]);
    assert_eq!(output.code, Some(1));
    let named: Vec<_> =
        output.stderr.lines().filter_map(|line| line.strip_prefix("line ")?.split(':').next()).collect();
    assert_eq!(named, ["2", "4", "5", "6"], "{}", output.stderr);
    assert!(output.stderr.contains("at most 524288 bytes are allowed"), "{}", output.stderr);
    assert!(output.stderr.ends_with("2 sent to q, 4 refused\n"), "{}", output.stderr);
    assert_eq!(dms(&["receive", "--ack", "q", "g", "--wait", "1s"]).received(), "{\"body\":1}\n{\"body\":3}\n");

    let json = program.run_with(&["-o", "json", "--endpoint", &url, "send", "q", "-"], "{}\n");
    assert_eq!(json.code, Some(1));
    let summary: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&summary["sent"], &summary["refused"][0]["line"]), (&0.into(), &1.into()));
}

#[test]
fn lines_may_begin_with_a_byte_order_mark_and_utf_16_is_named() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    let file = program.file("lines.jsonl", "\u{feff}{\"body\":1}\n{\"body\":2}\n");
    dms(&["send", "q", "--file", &file]).ok();
    program.run_with(&["--endpoint", &url, "send", "q", "-"], "\u{feff}{\"body\":3}\n").ok();
    assert_eq!(
        dms(&["receive", "--ack", "q", "g", "--wait", "1s"]).received(),
        "{\"body\":1}\n{\"body\":2}\n{\"body\":3}\n"
    );

    let wide: Vec<u8> = "\u{feff}{\"body\":1}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&file, wide).unwrap();
    let output = dms(&["send", "q", "--file", &file]).failed(1);
    assert!(output.contains("lines.jsonl cannot be read: it is UTF-16 text: save it as UTF-8"), "{output}");
}

/// `tests/load/send_resume.py` does the same with a million lines.
#[test]
fn a_file_whose_sending_was_killed_is_resumed() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    let good = |n: u32| format!("{{\"body\":{n},\"attributes\":{{\"pad\":\"{}\"}}}}\n", "x".repeat(60_000));
    let lines: String = (1..=400).map(|n| if n % 50 == 0 { "{}\n".to_owned() } else { good(n) }).collect();
    let file = program.file("orders.jsonl", &lines);
    let journal = program.dir().join("orders.jsonl.journal");

    let mut sending =
        program.command(&["--endpoint", &url, "send", "q", "--file", &file]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(sending.stderr.take().unwrap());
    let mut first = String::new();
    stderr.read_line(&mut first).unwrap();
    assert_eq!(first, "line 50: has no `body`: write {\"body\": …}\n");
    sending.kill().unwrap();
    sending.wait().unwrap();
    let reported = 1 + stderr.lines().count();

    let unasked = dms(&["send", "q", "--file", &file]).failed(2);
    assert!(unasked.contains("add --resume to go on there, or remove the journal"), "{unasked}");
    let other = dms(&[
        "send",
        "q",
        "--file",
        &program.file("other.jsonl", "{}\n"),
        "--journal",
        journal.to_str().unwrap(),
        "--resume",
    ]);
    assert!(other.failed(2).contains("does not fit"));
    let resumed = dms(&["send", "q", "--file", &file, "--resume"]);
    assert_eq!(resumed.code, Some(1), "{}", resumed.stderr);
    assert!(resumed.stderr.starts_with("going on after line "), "{}", resumed.stderr);
    let named = resumed.stderr.lines().filter(|line| line.starts_with("line ")).count();
    assert!(reported + named >= 8, "{}", resumed.stderr);
    let again = dms(&["-o", "json", "send", "q", "--file", &file, "--resume"]);
    assert_eq!(
        serde_json::from_str::<Value>(&again.stdout).unwrap()["sent"],
        392,
        "all is sent already: {}",
        again.stderr
    );

    let received = dms(&["receive", "--ack", "q", "g", "--max", "1000", "--wait", "1s"]).received();
    let body = |line: &str| serde_json::from_str::<Value>(line).unwrap()["body"].as_u64().unwrap();
    let mut bodies: Vec<u64> = received.lines().map(body).collect();
    bodies.sort_unstable();
    let all = bodies.len();
    bodies.dedup();
    assert!(bodies.into_iter().eq((1..=400).filter(|n| n % 50 > 0)));
    let most = resumed.stderr.split("at most ").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(all - 392 <= most && most <= 300, "{} are there twice, and at most {most} said", all - 392);
}

#[test]
fn a_finished_run_with_refused_lines_is_not_sent_again_by_resume() {
    let program = Program::new();
    let server = program.start(&["serve", "--listen", "127.0.0.1:0"]);
    let url = server.url("serving on ");
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    let lines = "{\"body\":1}\n{\"tags\":[]}\n{\"body\":2}\n";
    let file = program.file("lines.jsonl", lines);
    dms(&["send", "q", "--file", &file]).failed(1);
    let resumed = dms(&["send", "q", "--file", &file, "--resume"]);
    assert!(resumed.stderr.starts_with("going on after line 3: 2 sent and 1 refused so far"), "{}", resumed.stderr);
    assert!(dms(&["queue", "show", "q", "-o", "json"]).ok().contains("\"produced_messages\": 2"));
    // What is added later is sent, and without --resume a finished run is no reason not to begin again.
    program.file("lines.jsonl", &format!("{lines}{{\"body\":3}}\n"));
    dms(&["send", "q", "--file", &file, "--resume"]).failed(1);
    assert!(dms(&["queue", "show", "q", "-o", "json"]).ok().contains("\"produced_messages\": 3"));
    let mended = program.file("lines.jsonl", "{\"body\":1}\n");
    dms(&["send", "q", "--file", &mended]).ok();
    assert!(!program.dir().join("lines.jsonl.journal").exists());
}

#[test]
fn a_send_that_an_outage_ended_can_be_resumed() {
    let (program, server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    let file = program.file("lines.jsonl", "{\"body\":1}\n");
    drop(server);
    assert_eq!(dms(&["send", "q", "--file", &file]).code, Some(69));
    assert!(!program.dir().join("lines.jsonl.journal").exists(), "nothing was sent");
    assert!(dms(&["send", "q", "-", "--resume"]).failed(2).contains("cannot be used with"));
}

/// A server on the program's data directory whose every send fails: a disk is full, say.
fn in_trouble(program: &Program) -> (Running, String) {
    let server = program.serve(&["--data-dir", "data", "--faults", "error@send:1"]);
    let url = server.url("serving on ");
    program.run(&["--endpoint", &url, "queue", "create", "q", "--group", "g"]).ok();
    (server, url)
}

#[cfg(unix)]
fn mode(path: &std::path::Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions()) & 0o777
}

#[test]
fn server_errors_refuse_no_line_of_a_file() {
    let program = Program::new();
    let (server, url) = in_trouble(&program);
    let lines: String = (1..=40).map(|n| format!("{{\"body\":{n}}}\n")).collect();
    let file = program.file("lines.jsonl", &lines);
    let stopped =
        program.run(&["--endpoint", &url, "send", "q", "--file", &file, "--rejected", "bad.jsonl"]).failed(69);
    let told: Vec<_> = stopped.lines().filter(|line| line.contains("line ")).collect();
    assert_eq!(told.len(), 1, "told once: {stopped}");
    assert!(told[0].starts_with("error: line 1: send: DMS.10250002"), "{stopped}");
    assert!(told[0].ends_with("it may have taken effect all the same"), "{stopped}");
    assert!(
        stopped.contains("stopped early: 0 sent; the journal has the place, and --resume goes on there"),
        "{stopped}"
    );
    assert!(!stopped.to_lowercase().contains("nothing was changed") && !stopped.contains("refused"), "{stopped}");
    assert!(!program.dir().join("bad.jsonl").exists(), "no line was refused");
    #[cfg(unix)]
    assert_eq!(mode(&program.dir().join("lines.jsonl.journal")), 0o600);

    drop(server);
    let server = program.serve(&["--data-dir", "data"]);
    let url = server.url("serving on ");
    let resumed = program.run(&["--endpoint", &url, "send", "q", "--file", &file, "--resume"]);
    assert!(resumed.stderr.contains("going on after line 0: 0 sent and 0 refused so far"), "{}", resumed.stderr);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    let received =
        program.run(&["--endpoint", &url, "receive", "--ack", "q", "g", "--max", "100", "--wait", "1s"]).received();
    let mut received: Vec<_> = received.lines().collect();
    let mut lines: Vec<_> = lines.lines().collect();
    received.sort_unstable();
    lines.sort_unstable();
    assert_eq!(received, lines);
}

#[test]
fn lines_read_but_not_stored_are_kept() {
    let program = Program::new();
    let (_server, url) = in_trouble(&program);
    let lines: String =
        (1..=40).map(|n| if n == 30 { "{}\n".to_owned() } else { format!("{{\"body\":{n}}}\n") }).collect();
    let stopped =
        program.run_with(&["--endpoint", &url, "send", "q", "-", "--rejected", "left.jsonl"], &lines).failed(69);
    assert!(
        stopped.contains("It is not known whether 39 of the lines 1 to 40 are stored; see left.jsonl"),
        "{stopped}"
    );
    assert!(stopped.contains("line 30: has no `body`"), "{stopped}");
    assert_eq!(std::fs::read_to_string(program.dir().join("left.jsonl")).unwrap(), lines);
    let untold = program.run_with(&["--endpoint", &url, "send", "q", "-"], "{\"body\":1}\n").failed(69);
    assert!(untold.trim_end().ends_with("It is not known whether line 1 is stored"), "{untold}");
}

#[test]
fn refused_lines_are_kept_in_a_file() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--group", "g"]).ok();
    // The client refuses the first, the server the second.
    let (odd, half) = ("{\"bdy\": 2}", r#"{"body":3,"attributes":{"who":"\ud83d"}}"#);
    let file = program.file("lines.jsonl", &format!("{{\"body\":1}}\n{odd} \r\n\n{half}\n{{\"body\":4}}"));
    let sent = dms(&["send", "q", "--file", &file, "--rejected", "bad.jsonl"]);
    assert_eq!(sent.code, Some(1), "{}", sent.stderr);
    let named: Vec<_> = sent.stderr.lines().filter_map(|line| line.strip_prefix("line ")?.split(':').next()).collect();
    assert_eq!(named, ["2", "4"], "{}", sent.stderr);
    assert!(sent.stderr.ends_with("2 sent to q, 2 refused (the lines are in bad.jsonl)\n"), "{}", sent.stderr);
    let bad = program.dir().join("bad.jsonl");
    let kept = std::fs::read_to_string(&bad).unwrap();
    assert_eq!(kept, format!("{odd}\n{half}\n"));
    #[cfg(unix)]
    assert_eq!(mode(&bad), 0o600);
    let again = dms(&["send", "q", "--file", &file, "--rejected", "bad.jsonl"]).failed(2);
    assert!(again.contains("bad.jsonl is there already: name another file for --rejected"), "{again}");
    assert!(!program.dir().join("lines.jsonl.journal").exists(), "nothing was begun");
    let itself = dms(&["send", "q", "--file", "bad.jsonl", "--resume", "--rejected", "./bad.jsonl"]).failed(2);
    assert!(itself.contains("names the file that is sent"), "{itself}");
    assert!(dms(&["send", "q", "body", "--rejected", "x"]).failed(2).contains("--rejected is for the lines"));

    let mended = kept.replace("bdy", "body").replace("\\ud83d", "\\ud83d\\ude00");
    std::fs::write(&bad, mended).unwrap();
    dms(&["send", "q", "--file", "bad.jsonl", "--rejected", "worse.jsonl"]).ok();
    assert!(!program.dir().join("worse.jsonl").exists());
    assert_eq!(dms(&["receive", "--ack", "q", "g", "--wait", "1s"]).ok().lines().count(), 4);
}

#[test]
fn a_thousand_lines_go_in_order_to_a_fifo_queue() {
    let (program, _server, url) = setup();
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    dms(&["queue", "create", "q", "--mode", "FIFO", "--group", "g"]).ok();
    let lines: String = (0..1000).map(|n| format!("{{\"body\":{n}}}\n")).collect();
    program.run_with(&["--endpoint", &url, "send", "q", "-"], &lines).ok();
    let received = dms(&["receive", "--ack", "q", "g", "--max", "1000", "--wait", "1s"]).received();
    assert_eq!(received, lines);
}

#[test]
fn both_versions_of_the_api_and_a_configured_endpoint_work() {
    let (program, _server, url) = setup();
    program.file("config.yaml", &format!("dms: {{endpoint: '{url}', api_version: v1.0}}\n"));
    program.run(&["queue", "create", "q", "--group", "g"]).ok();
    program.run(&["--api-version", "v2", "send", "q", "1"]).ok();
    assert_eq!(program.run(&["receive", "--ack", "q", "g", "--wait", "1s"]).received(), "{\"body\":1}\n");
    assert!(
        program
            .run(&["--api-version", "v3", "queue", "list"])
            .failed(78)
            .contains("--api-version: dms.api_version: `v3` is not allowed: write v2 or v1.0")
    );
}

#[test]
fn a_project_does_not_see_the_queues_of_others() {
    let (program, _server, url) = setup();
    program.run(&["--endpoint", &url, "queue", "create", "q"]).ok();
    let other = program.run(&["--endpoint", &url, "--project-id", "other", "-o", "json", "queue", "list"]);
    assert!(other.code == Some(0) && other.stdout.trim() == "[]" || other.code == Some(77), "{}", other.stderr);
}
