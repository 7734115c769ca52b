//! ROMA Connect MQS through the program: `serve` at one end, and everything that speaks the dialect at the other.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
};

use serde_json::{Value, json};

use super::{Output, Program, Running};

/// The four lines that a configuration needs for MQS.
fn dms(url: &str) -> String {
    format!(
        "dms:\n  endpoint: {url}\n  dialect: mqs\n  auth:\n    access_key: sasl-user\n    secret_key: sasl-password\n"
    )
}

/// A server that answers the API of MQS, and the configuration of its clients.
struct Mqs {
    program: Program,
    server: Running,
    url: String,
    config: String,
}

impl Mqs {
    fn new() -> Self {
        let program = Program::new();
        let server = program.file(
            "server.yaml",
            "server:\n  listen: 127.0.0.1:0\n  auth: {access_keys: [{access_key: sasl-user, secret_key: sasl-password}]}\n  mqs: {listen: 127.0.0.1:0}\n",
        );
        let server = program.start(&["serve", "-c", &server]);
        let url = server.url("MQS on ");
        let config = program.file("client.yaml", &dms(&url));
        Self { program, server, url, config }
    }

    /// Runs a command over MQS.
    fn run(&self, args: &[&str]) -> Output {
        self.program.run(&[&["-c", &self.config], args].concat())
    }

    fn bodies(&self, topic: &str, group: &str) -> Vec<Value> {
        let lines = self.run(&["receive", topic, group, "--ack", "--wait", "1s", "--max", "100"]).ok();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An application that says 200 to every message, and the bodies of these.
fn application() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/orders", listener.local_addr().unwrap());
    let (sender, bodies) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            if !body.is_empty() && sender.send(body).is_err() {
                return;
            }
        }
    });
    (url, bodies)
}

/// The body of a request.
fn request(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest.lines().next().unwrap());
            if read == 0 || body.len() >= length.trim().parse().unwrap() {
                return body.to_owned();
            }
        } else if read == 0 {
            return String::new();
        }
    }
}

/// The example of the sidecar, whose application and publisher know nothing of MQS, with four lines about the service.
#[test]
fn the_sidecar_example_runs_over_mqs_with_four_other_lines() {
    let mqs = Mqs::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/sidecar/config.yaml");
    let example = std::fs::read_to_string(example).unwrap();
    let (before, rest) = example.split_once("dms: {endpoint: embedded}").unwrap();
    let (_, after) = rest.split_once('\n').unwrap();
    let config = mqs.program.file("sidecar.yaml", &format!("{before}{}{after}", dms(&mqs.url)));
    let (app, bodies) = application();
    let (publisher, admin) = (free_port(), free_port());
    let mut command = mqs.program.command(&["run", "-c", &config]);
    command.env("DMS_WORKER_WORKERS__0__HANDLER__HTTP__URL", &app);
    command.env("DMS_WORKER_PUBLISHERS__0__LISTEN", format!("127.0.0.1:{publisher}"));
    command.env("DMS_WORKER_ADMIN__LISTEN", format!("127.0.0.1:{admin}"));
    let sidecar = Running::start(&mut command);
    let mut stream = TcpStream::connect(("127.0.0.1", publisher)).unwrap();
    let body = r#"{"body":{"order":7,"text":"größer"}}"#;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let delivered: Value = serde_json::from_str(&bodies.recv().unwrap()).unwrap();
    assert_eq!(delivered, json!({"order": 7, "text": "größer"}));
    sidecar.signal("TERM");
    let (status, log) = sidecar.wait();
    assert!(status.success(), "{log}");
    assert_eq!(mqs.bodies("orders", "billing"), [json!(null); 0], "it was acknowledged");
}

#[test]
fn a_poison_message_is_parked_shown_and_sent_again() {
    let mqs = Mqs::new();
    let worker = format!(
        "{}workers:\n- queue: orders\n  group: billing\n  on_reject: {{park: orders-parked}}\n  max_attempts: 2\n  handler: {{command: ['false']}}\n",
        dms(&mqs.url)
    );
    let worker = mqs.program.file("worker.yaml", &worker);
    mqs.run(&["send", "orders", r#"{"n":1}"#]).ok();
    let mut sidecar = mqs.program.start(&["run", "-c", &worker]);
    sidecar.until("\"attempt\":2,\"outcome\"");
    sidecar.signal("TERM");
    assert!(sidecar.wait().0.success());
    let listed = mqs.run(&["-o", "json", "dlq", "list", "orders-parked", "ops", "--parked"]).json();
    assert_eq!((&listed[0]["reason"], &listed[0]["parked"]), (&json!("failed"), &json!(1)), "{listed}");
    let shown = mqs.run(&["-o", "json", "dlq", "show", "orders-parked", "ops", "--parked"]).json();
    let attributes = &shown[0]["attributes"];
    assert_eq!((&shown[0]["body"], &attributes["dms-origin"]), (&json!({"n": 1}), &json!("orders")), "{shown}");
    assert_eq!((&attributes["dms-attempts"], &attributes["dms-reason"]), (&json!(2), &json!("failed")), "{shown}");
    for (args, what) in [
        (["dlq", "redrive", "orders-parked", "ops", "--parked", "--max-redrives=3"].as_slice(), "--max-redrives"),
        (&["dlq", "redrive", "orders-parked", "ops", "--parked", "--set=a=1"], "--set"),
    ] {
        let refused = mqs.run(args).failed(2);
        assert!(refused.contains(what) && refused.contains("ROMA Connect MQS"), "{refused}");
    }
    let redriven = mqs.run(&["-o", "json", "dlq", "redrive", "orders-parked", "ops", "--parked"]).json();
    assert_eq!((&redriven["redriven"], &redriven["refused"]), (&json!(1), &json!(0)), "{redriven}");
    assert_eq!(mqs.bodies("orders", "billing"), [json!({"n": 1})]);
    assert_eq!(mqs.bodies("orders-parked", "ops"), [json!(null); 0]);
}

#[test]
fn a_file_is_sent_and_received_over_mqs() {
    let mqs = Mqs::new();
    let file = mqs.program.file("lines.jsonl", &(0..25).map(|n| format!("{{\"body\":{n}}}\n")).collect::<String>());
    for _ in 0..2 {
        mqs.run(&["send", "orders", "--file", &file, "--resume"]).ok();
    }
    let mut bodies: Vec<u64> = mqs.bodies("orders", "billing").iter().map(|body| body.as_u64().unwrap()).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, (0..25).collect::<Vec<_>>(), "a finished file is not sent again");
    let refused = mqs.run(&["send", "orders", "1", "--attribute", "a=1"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("carries no attributes"), "{}", refused.stderr);
    for (args, what) in [
        (["send", "orders", "1", "--ids"].as_slice(), "returns no ids"),
        (&["receive", "orders", "billing", "--tag", "a"], "no labels"),
        (&["receive", "orders", "billing", "--dead-letters"], "park messages"),
        (&["receive", "orders", "billing", "--wait", "31s"], "1 to 30"),
        (&["queue", "list"], "has no such call"),
        (&["group", "create", "orders", "g"], "has no such call"),
        (&["peek", "orders", "billing"], "cannot show messages without leasing them"),
        (&["message", "show", "some-id"], "has no such call"),
        (&["tag", "list", "orders"], "has no such call"),
        (&["dlq", "list", "orders", "billing"], "`dlq list orders billing --parked`"),
        (&["stats", "orders", "billing"], "has no such call"),
        (&["quota"], "has no such call"),
        (&["dlq", "show", "orders", "billing"], "park messages"),
        (&["dlq", "redrive", "orders", "billing"], "park messages"),
        (&["queue", "move", "orders", "others"], "name the group with --group"),
        (&["queue", "copy", "orders", "others"], "use `queue move TOPIC TARGET --group NAME`"),
        (&["queue", "move", "orders", "others", "--group", "billing", "--match", "a=1"], "--match-body"),
        (&["queue", "move", "orders", "others", "--group", "billing", "--tag", "a"], "--match-body"),
        (&["queue", "move", "orders", "orders", "--group", "billing"], "the source and the target"),
        (&["bench", "--against", &mqs.url], "--queue"),
    ] {
        let refused = mqs.run(args);
        assert!(refused.code != Some(0) && refused.stderr.contains(what), "{args:?}: {}", refused.stderr);
    }
}

/// The credentials are the same at both addresses of the server, the queues too.
#[test]
fn a_backlog_moves_from_and_to_mqs() {
    let (mqs, other) = (Mqs::new(), Mqs::new());
    let url = mqs.server.url("serving on ");
    let own = dms(&url).replace("  dialect: mqs\n", "");
    let own = mqs.program.file("own.yaml", &own);
    let over_dms = |args: &[&str]| mqs.program.run(&[&["-c", &own], args].concat());
    over_dms(&["queue", "create", "target", "--group", "g"]).ok();
    for n in 0..3 {
        mqs.run(&["send", "orders", &format!(r#"{{"n":{n}}}"#)]).ok();
    }
    let bodies = |numbers: &[u64]| numbers.iter().map(|n| json!({"n": n})).collect::<Vec<_>>();
    // The group is new: it gets everything that the topic keeps.
    let some = ["queue", "move", "orders", "target", "--group", "copier", "--to-config", &own, "--match-body", "/n=1"];
    let dry = mqs.run(&[&["-o", "json"], &some[..], &["--dry-run"]].concat()).json();
    assert_eq!((&dry["moved"], &dry["filtered"]), (&json!(1), &json!(2)), "{dry}");
    let some = mqs.run(&[&["-o", "json"], &some[..]].concat()).json();
    assert_eq!((&some["moved"], &some["filtered"], &some["refused"]), (&json!(1), &json!(2), &json!(0)), "{some}");
    let rest = ["queue", "move", "orders", "target", "--group", "copier", "--to-config", &own];
    assert!(mqs.run(&rest).ok().starts_with("2 moved"));
    let received = over_dms(&["receive", "target", "g", "--ack", "--wait", "1s", "--max", "100"]).ok();
    let received: Vec<Value> =
        received.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect();
    assert_eq!(received, bodies(&[1, 0, 2]));

    // Back, and to another service, where the topic has the same name. Attributes would be lost, so that message stays.
    over_dms(&["group", "create", "target", "back"]).ok();
    over_dms(&["send", "target", "7", "--attribute", "a=1"]).ok();
    let back = ["-o", "json", "queue", "move", "target", "returned", "--group", "back", "--to-config", &mqs.config];
    let back = over_dms(&back).json();
    assert_eq!((&back["moved"], &back["refused"]), (&json!(3), &json!(1)), "{back}");
    let on = ["queue", "move", "returned", "returned", "--group", "mover", "--to-endpoint", &other.url];
    assert!(mqs.run(&on).ok().starts_with("3 moved"));
    // A target of the other API needs an option of its own, which the refusal names, from either side.
    mqs.run(&["send", "orders", "1"]).ok();
    let wrong = ["queue", "move", "orders", "target", "--group", "wrong", "--to-endpoint", &url];
    let from_mqs = mqs.run(&wrong).failed(1);
    let wrong = ["queue", "move", "target", "orders", "--group", "back", "--to-endpoint", &mqs.url];
    let from_dms = over_dms(&wrong).failed(1);
    for (said, to) in [(from_mqs, &url), (from_dms, &mqs.url)] {
        assert!(said.contains(&format!("if {to} has the other one, name it in a file with --to-config")), "{said}");
    }
    let other_api = mqs.program.run(&["--endpoint", &url, "-c", &mqs.config, "send", "orders", "1"]).failed(1);
    assert!(other_api.contains("the address of ROMA Connect MQS, and not of a DMS service"), "{other_api}");
    assert_eq!(other.bodies("returned", "readers"), bodies(&[1, 0, 2]));
}

#[test]
fn what_the_key_may_do_is_asked_without_changing_anything() {
    let mqs = Mqs::new();
    let worker = format!(
        "{}workers: [{{queue: orders, group: billing, on_reject: {{park: parked}}, handler: {{log: {{}}}}}}]\npublishers: [{{queue: orders}}]\n",
        dms(&mqs.url)
    );
    let file = mqs.program.file("worker.yaml", &worker);
    let checked = mqs.program.run(&["check", "--online", "-c", &file]);
    assert!(checked.stderr.contains("is not there yet"), "{}", checked.stderr);
    checked.ok();
    let wrong = mqs.program.file("wrong.yaml", &worker.replace("sasl-password", "guessed"));
    mqs.program.run(&["check", "--online", "-c", &wrong]).failed(77);
    // What the worker would warn about is said once.
    let hasty = worker.replace("on_reject: {park: parked}", "on_reject: fail, poll_wait: 1s");
    let checked = mqs.program.run(&["check", "--online", "-c", &mqs.program.file("hasty.yaml", &hasty)]);
    for warning in ["poll_wait is 1s", "on_reject fail: ROMA Connect MQS has no dead letters"] {
        assert_eq!(checked.stderr.matches(warning).count(), 1, "{}", checked.stderr);
    }
    // Also where no worker and no publisher asks.
    mqs.run(&["check", "--online"]).ok();
    let wrong = mqs.program.file("wrong.yaml", &dms(&mqs.url).replace("sasl-password", "guessed"));
    mqs.program.run(&["check", "--online", "-c", &wrong]).failed(77);
    assert_eq!(mqs.bodies("orders", "billing"), [json!(null); 0]);
    assert!(mqs.server.pid() > 0);
}

#[test]
fn the_tour_and_the_load_generator_speak_mqs() {
    let program = Program::new();
    let tour = program.run(&["demo", "--dialect", "mqs", "--orders", "100", "-o", "json"]).json();
    assert_eq!((&tour["complete"], &tour["lost"], &tour["redriven"]), (&json!(true), &json!(0), &json!(1)), "{tour}");
    let args =
        ["bench", "--dialect", "mqs", "--messages", "40", "--duration", "5s", "--connections", "2", "-o", "json"];
    let figures = program.run(&args).json();
    let text = figures.to_string();
    for run in ["produce", "consume", "both", "latency"] {
        assert!(text.contains(run), "{run}: {text}");
    }
    assert!(text.contains("\"p99\""), "{text}");
    let refused = program.run(&["demo", "--dialect", "kafka"]).failed(2);
    assert!(refused.contains("write dms or mqs"), "{refused}");
}

/// Commands over MQS that are refused as a whole, with arguments.
const REFUSED: &[&[&str]] = &[
    &["group", "create", "t", "g"],
    &["group", "delete", "t", "g", "--yes"],
    &["group", "list", "t"],
    &["message", "discard", "x", "--yes"],
    &["message", "retry", "x"],
    &["message", "show", "x"],
    &["queue", "copy", "t", "u"],
    &["queue", "create", "t"],
    &["queue", "delete", "t", "--yes"],
    &["queue", "list"],
    &["queue", "show", "t"],
    &["quota"],
    &["stats", "t", "g"],
    &["tag", "add", "t", "a=1"],
    &["tag", "list", "t"],
    &["tag", "project"],
    &["tag", "remove", "t", "a"],
    &["top"],
];

/// Commands that look for another service: files, the admin address of this project's server, or a process of their own.
const ELSEWHERE: &[&str] = &[
    "cluster drain",
    "cluster move",
    "cluster status",
    "completions",
    "config schema",
    "config show",
    "context add",
    "context list",
    "context remove",
    "context show",
    "context use",
    "data backup",
    "data check",
    "data damaged",
    "data export",
    "data import",
    "data rebuild-index",
    "data repair",
    "data skip",
    "data verify",
    "health",
    "key add",
    "key list",
    "key remove",
    "man",
    "peek",
    "queue purge",
    "queue update",
    "run",
    "schedule add",
    "schedule list",
    "schedule pause",
    "schedule remove",
    "schedule resume",
    "serve",
];

/// The options of the commands that speak MQS, in order of their names. What is in brackets is refused, or has no effect with any
/// service; `OPTIONS` shows it.
const SPOKEN: &[(&str, &str)] = &[
    (
        "bench",
        "against batch connections data-dir duration messages queue rate report run server-pid size (sweep) up-to",
    ),
    ("check", "online"),
    ("demo", "(keep) orders"),
    ("dlq discard", "dry-run match match-body max parked (tag) yes"),
    ("dlq dump", "ack append file match match-body max parked (tag)"),
    ("dlq list", "(admin) by-reason parked"),
    (
        "dlq redrive",
        "dry-run (edited) file journal match match-body max (max-redrives) parked rate resume (set) (tag) to unset",
    ),
    ("dlq show", "(admin) match match-body max parked (tag)"),
    ("queue move", "dry-run group journal (match) match-body max rate (tag) to-config to-endpoint (to-project-id)"),
    ("receive", "ack ack-wait (all-tags) (dead-letters) follow max no-ack (tag) wait"),
    (
        "send",
        "allow-duplicates (attribute) (deduplication-key) (deduplication-window) (delay) file (ids) journal rejected resume (tag) text",
    ),
];

/// The options of every command.
const GLOBAL: &str = "(api-version) color config context dialect endpoint help output (project-id) quiet verbose";

/// Options that cannot work, with a part of the refusal.
const OPTIONS: &[(&[&str], &str)] = &[
    (&["--api-version", "v1.0", "receive", "t", "g"], "leave it out"),
    (&["--project-id", "p", "receive", "t", "g"], "leave out the project id"),
    (&["bench", "--dialect", "mqs", "--sweep"], "leave out --sweep"),
    (&["demo", "--dialect", "mqs", "--keep"], "leave out --dialect mqs"),
    (&["dlq", "discard", "t", "g", "--parked", "--yes", "--tag", "a"], "--match-body"),
    (&["dlq", "dump", "t", "g", "--parked", "--tag", "a"], "--match-body"),
    (&["dlq", "list", "t", "g", "--parked", "--by-reason", "--admin", "http://127.0.0.1:1"], "leave it out"),
    (&["dlq", "redrive", "t", "g", "--parked", "--edited"], "leave it out"),
    (&["dlq", "redrive", "t", "g", "--parked", "--max-redrives", "2"], "leave it out"),
    (&["dlq", "redrive", "t", "g", "--parked", "--set", "a=1"], "leave it out"),
    (&["dlq", "redrive", "t", "g", "--parked", "--tag", "a"], "--match-body"),
    (&["dlq", "show", "t", "g", "--parked", "--admin", "http://127.0.0.1:1"], "leave it out"),
    (&["dlq", "show", "t", "g", "--parked", "--tag", "a"], "--match-body"),
    (&["queue", "move", "t", "u", "--group", "g", "--match", "a=1"], "--match-body"),
    (&["queue", "move", "t", "u", "--group", "g", "--tag", "a"], "--match-body"),
    (&["queue", "move", "t", "u", "--group", "g", "--to-project-id", "p"], "leave out the project id"),
    (&["receive", "t", "g", "--dead-letters"], "park messages in another topic"),
    (&["receive", "t", "g", "--tag", "a", "--all-tags"], "filter in the handler"),
    (&["send", "t", "1", "--attribute", "a=1"], "put them into the body"),
    (
        &["send", "t", "1", "--deduplication-key", "k", "--deduplication-window", "1s"],
        "deduplicate by a value in the body",
    ),
    (&["send", "t", "1", "--delay", "3s"], "send the message later"),
    (&["send", "t", "1", "--ids"], "leave it out"),
    (&["send", "t", "1", "--tag", "a"], "put them into the body"),
    (
        &["context", "add", "c", "--endpoint", "http://127.0.0.1:1", "--dialect", "mqs", "--project-id", "p"],
        "the project id",
    ),
];

#[test]
fn every_command_and_option_works_over_mqs_or_is_refused() {
    let mqs = Mqs::new();
    let helps = super::hints::helps(&mqs.program);
    let is_command =
        |words: &&str| !words.is_empty() && !helps.keys().any(|other| other.starts_with(&format!("{words} ")));
    let commands: BTreeSet<&str> = helps.keys().map(String::as_str).filter(is_command).collect();
    let spoken = SPOKEN.iter().map(|(command, _)| *command).chain(ELSEWHERE.iter().copied()).map(str::to_owned);
    let name = |args: &&[&str]| [args[0].to_owned(), args[..2.min(args.len())].join(" ")];
    let refused = REFUSED.iter().filter_map(|args| name(args).into_iter().find(|name| commands.contains(&**name)));
    let listed: BTreeSet<String> = spoken.chain(refused).collect();
    assert_eq!(commands, listed.iter().map(String::as_str).collect(), "a new command needs a line here");

    let mut not_working = BTreeSet::new();
    for (command, options) in SPOKEN {
        let names: BTreeSet<_> = options.split(' ').chain(GLOBAL.split(' ')).collect();
        let found: BTreeSet<_> = helps[*command]
            .lines()
            .filter(|line| line.trim_start().starts_with('-'))
            .filter_map(|line| line.split_once("--")?.1.split([' ', '.']).next())
            .collect();
        let plain = |name: &str| name.trim_matches(['(', ')']).to_owned();
        assert_eq!(
            found,
            names.iter().map(|name| plain(name)).collect::<BTreeSet<_>>().iter().map(String::as_str).collect(),
            "a new option of {command} needs a line here"
        );
        not_working.extend(names.iter().filter(|name| name.starts_with('(')).map(|name| format!("--{}", plain(name))));
    }
    let shown: BTreeSet<_> = OPTIONS.iter().flat_map(|(args, _)| args.iter()).map(|arg| (*arg).to_owned()).collect();
    assert!(not_working.is_subset(&shown), "{:?}", not_working.difference(&shown).collect::<Vec<_>>());

    for args in REFUSED {
        let refused = mqs.run(args);
        assert_ne!(refused.code, Some(0), "{args:?}");
        let text = refused.stderr;
        assert!(text.contains("ROMA Connect MQS"), "{args:?}: {text}");
    }
    for (args, remedy) in OPTIONS {
        let refused = mqs.run(args);
        assert_ne!(refused.code, Some(0), "{args:?}");
        let text = refused.stderr;
        assert!(text.contains(remedy) && (text.contains("MQS") || text.contains("mqs")), "{args:?}: {text}");
    }
}

/// Conditions look at the message in a parked document, not at the document.
#[test]
fn parked_messages_are_discarded_by_what_is_in_their_documents() {
    let mqs = Mqs::new();
    for n in 0..3 {
        let document =
            format!(r#"{{"body":{{"n":{n}}},"attributes":{{"dms-reason":"failed","dms-origin":"orders"}}}}"#);
        mqs.run(&["send", "parked", &document]).ok();
    }
    let discard = |condition: &[&str]| {
        let command = ["-o", "json", "dlq", "discard", "parked", "ops", "--parked", "--yes"];
        mqs.run(&[&command[..], condition].concat()).json()["discarded"].clone()
    };
    assert_eq!(discard(&["--match-body", "/n=1"]), json!(1));
    assert_eq!(discard(&["--match", "dms-reason=rejected"]), json!(0));
    assert_eq!(discard(&["--match", "dms-reason=failed"]), json!(2));
}
