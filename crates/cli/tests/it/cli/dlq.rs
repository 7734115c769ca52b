//! `dlq`: showing, redriving and discarding dead letters.

use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Message},
    queue::{NewQueue, SourcePath, Stream},
};
use serde_json::{Value, json};

use super::{Output, Program, Running};

struct Dlq {
    program: Program,
    _server: Running,
    url: String,
}

impl Dlq {
    /// A queue whose group has four dead letters: bodies 0 to 3, tenants 0 and 1 in turn.
    fn new() -> Self {
        let program = Program::new();
        let server = program.serve(&[]);
        let url = server.url("serving on ");
        tokio::runtime::Runtime::new().unwrap().block_on(fail_four(&url));
        Self { program, _server: server, url }
    }

    fn run(&self, args: &[&str]) -> Output {
        self.program.run(&[&["--endpoint", &self.url], args].concat())
    }

    fn left(&self) -> u64 {
        self.run(&["-o", "json", "dlq", "list", "q", "g"]).json()[0]["available_dead_letters"].as_u64().unwrap()
    }
}

async fn fail_four(url: &str) {
    let client = Client::builder(url, "local").build().unwrap();
    let queue = client.create_queue(NewQueue::new("q").dead_letters_after(1)).await.unwrap().id;
    let group = client.create_groups(&queue, &["g"]).await.unwrap().remove(0).0;
    let messages: Vec<_> = (0..4).map(|n| Message::json(&n).unwrap().attribute("tenant", n % 2)).collect();
    client.send(&queue, &messages).await.unwrap();
    let source = SourcePath { queue, group, stream: Stream::Messages };
    for _ in 0..4 {
        let one = ConsumeOptions::new().max_messages(1);
        let batch = client.consume(&source, &one).await.unwrap();
        client.acknowledge(&source, &[(batch[0].handle.clone(), AckStatus::Fail)]).await.unwrap();
    }
}

#[test]
fn showing_dead_letters_removes_none() {
    let dlq = Dlq::new();
    let lines = dlq.run(&["dlq", "dump", "q", "g"]).ok();
    let bodies: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect();
    assert_eq!(bodies, [0, 1, 2, 3]);
    let some = dlq.run(&["dlq", "dump", "q", "g", "--match", "tenant=1"]).ok();
    assert_eq!(some.lines().count(), 2);
    let table = dlq.run(&["dlq", "show", "q", "g", "--max", "1"]).ok();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert_eq!(dlq.left(), 4);
}

#[test]
fn redriven_messages_are_delivered_again() {
    let dlq = Dlq::new();
    let dry = dlq.run(&["-o", "json", "dlq", "redrive", "q", "g", "--dry-run"]).json();
    assert_eq!((&dry["redriven"], dlq.left()), (&json!(4), 4));
    let some = dlq.run(&["-o", "json", "dlq", "redrive", "q", "g", "--match", "tenant=0"]).json();
    assert_eq!((&some["redriven"], &some["filtered"], dlq.left()), (&json!(2), &json!(2), 2));
    dlq.run(&["queue", "create", "repaired", "--group", "g"]).ok();
    let text = dlq.run(&["dlq", "redrive", "q", "g", "--to", "repaired", "--rate", "1000/s"]).ok();
    assert!(text.starts_with("2 redriven, 0 left"), "{text}");
    assert_eq!(dlq.left(), 0);
    let bodies = |queue: &str| {
        let lines = dlq.run(&["receive", "--ack", queue, "g", "--wait", "1s"]).ok();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((bodies("q"), bodies("repaired")), (vec![json!(0), json!(2)], vec![json!(1), json!(3)]));
}

#[test]
fn one_dead_letter_is_found_given_back_and_discarded_by_its_id() {
    let dlq = Dlq::new();
    let reasons = dlq.run(&["-o", "json", "dlq", "list", "q", "--by-reason"]).json();
    let reason = ["group", "reason", "dead_letters"].map(|key| reasons[0][key].clone());
    assert_eq!(reason, [json!("g"), json!("failed"), json!(4)]);
    let shown = dlq.run(&["-o", "json", "dlq", "show", "q", "g"]).json();
    let [second, third] = [1, 2].map(|n| shown[n]["id"].as_str().unwrap().to_owned());
    let found = dlq.run(&["-o", "json", "message", "show", &second]).json();
    let places: Vec<_> = found["places"].as_array().unwrap().iter().map(|place| place["place"].clone()).collect();
    assert_eq!((places, &found["id"]), (vec![json!("queue"), json!("dead_letters")], &json!(second)));
    assert!(dlq.run(&["message", "show", &second]).ok().contains("dead_letters"));

    assert_eq!(dlq.run(&["message", "retry", &second]).ok(), "given back to its group in 1 place\n");
    assert_eq!(dlq.left(), 3);
    let again = dlq.run(&["receive", "--ack", "q", "g", "--wait", "1s"]).json();
    assert_eq!((&again["body"], &again["id"]), (&json!(1), &json!(second)));

    assert!(dlq.run(&["message", "discard", &third]).failed(2).contains("add --yes"));
    dlq.run(&["message", "discard", &third, "--queue", "q", "--group", "g", "--yes"]).ok();
    assert_eq!(dlq.left(), 2);
    let gone = dlq.run(&["message", "retry", &third]);
    assert!(gone.code != Some(0) && gone.stderr.contains("There is no dead letter with the id"), "{}", gone.stderr);
}

#[test]
fn discarding_asks_for_confirmation() {
    let dlq = Dlq::new();
    assert!(dlq.run(&["dlq", "discard", "q", "g"]).failed(2).contains("add --yes"));
    assert_eq!(dlq.run(&["dlq", "discard", "q", "g", "--dry-run"]).ok(), "4 would be thrown away\n");
    assert_eq!(dlq.run(&["dlq", "discard", "q", "g", "--match", "tenant=1", "--yes"]).ok(), "2 thrown away\n");
    assert_eq!(dlq.left(), 2);
}

#[test]
fn dumped_dead_letters_can_be_redriven_from_the_file() {
    let dlq = Dlq::new();
    let file = dlq.program.dir().join("dead.jsonl").display().to_string();
    let said = dlq.run(&["dlq", "dump", "q", "g", "--file", &file, "--ack", "--max", "3"]);
    assert!(said.stderr.contains("3 dead letters of g written, and taken out of the queue"), "{}", said.stderr);
    assert_eq!(dlq.left(), 1);
    assert!(dlq.run(&["dlq", "dump", "q", "g", "--file", &file, "--ack"]).failed(2).contains("is there already"));
    dlq.run(&["dlq", "dump", "q", "g", "--file", &file, "--ack", "--append"]).ok();
    assert_eq!((dlq.left(), std::fs::read_to_string(&file).unwrap().lines().count()), (0, 4));

    let of_file = |args: &[&str]| dlq.run(&[&["-o", "json", "dlq", "redrive", "q", "--file", &file], args].concat());
    assert_eq!(of_file(&["--dry-run", "--match-body", "=2"]).json()["redriven"], 1);
    let report = of_file(&["--match", "tenant=1", "--set", "mended=true", "--unset", "tenant"]).json();
    assert_eq!((&report["redriven"], &report["filtered"], &report["doubled"]), (&json!(2), &json!(2), &json!(0)));
    let lines = dlq.run(&["receive", "--ack", "q", "g", "--wait", "1s"]).ok();
    // A copy keeps the id of the message that the line was made from.
    let id = |n: usize| {
        let line: Value =
            serde_json::from_str(std::fs::read_to_string(&file).unwrap().lines().nth(n).unwrap()).unwrap();
        line["id"].as_str().unwrap().to_owned()
    };
    let mended = |n: usize| {
        let id = id(n);
        let attributes = format!(r#"{{"dms-message-id":"{id}","dms-redriven":1,"mended":true}}"#);
        format!(r#"{{"body":{n},"attributes":{attributes},"id":"{id}"}}"#) + "\n"
    };
    assert_eq!(lines, mended(1) + &mended(3));
    let edited = "{\"body\":9,\"dead_letter\":{\"reason\":\"edited\",\"attempts\":1}}\n{\"body\":8}\n";
    let edited = dlq.program.file("edited.jsonl", edited);
    let of_edited = |args: &[&str]| {
        let report =
            dlq.run(&[&["-o", "json", "dlq", "redrive", "q", "--file", &edited, "--dry-run"], args].concat()).json();
        (report["redriven"].clone(), report["edited"].clone())
    };
    assert_eq!((of_edited(&[]), of_edited(&["--edited"])), ((json!(1), json!(1)), (json!(2), json!(0))));
    assert_eq!(of_file(&["--max", "1"]).json()["redriven"], 1);
    assert!(of_file(&[]).failed(2).contains("--resume"));
    assert_eq!(of_file(&["--resume"]).json()["redriven"], 4);
}

#[test]
fn parked_messages_are_shown_redriven_and_discarded_like_dead_letters() {
    let dlq = Dlq::new();
    dlq.run(&["queue", "create", "parked", "--group", "ops"]).ok();
    let history = [
        "dms-reason=rejected",
        "dms-error=no such customer",
        "dms-worker=orders",
        "dms-attempts=3",
        "dms-first-failure=2026-01-01T00:00:00Z",
        "dms-last-failure=2026-01-02T00:00:00Z",
        "dms-origin=q",
    ];
    let attributes: Vec<&str> = history.iter().flat_map(|attribute| ["--attribute", attribute]).collect();
    dlq.run(&[&["send", "parked", "1", "2"], &*attributes].concat()).ok();
    let listed = dlq.run(&["-o", "json", "dlq", "list", "parked", "ops"]).json();
    assert_eq!(listed[0]["available_messages"], 2);
    let shown = dlq.run(&["dlq", "show", "parked", "ops", "--parked", "--max", "1"]);
    assert_eq!(shown.stderr, "", "nothing is leased for the look");
    let row = shown.ok();
    for attribute in history.iter().filter(|attribute| !attribute.starts_with("dms-origin")) {
        assert!(row.contains(attribute.split_once('=').unwrap().1), "{attribute}\n{row}");
    }
    let args = ["dlq", "redrive", "parked", "ops", "--parked", "--match-body", "=2"];
    assert!(dlq.run(&args).ok().starts_with("1 redriven, 1 left"));
    let copy = dlq.run(&["receive", "--ack", "q", "g", "--wait", "1s"]).json();
    let attributes = json!({ "dms-message-id": copy["id"], "dms-redriven": 1 });
    assert_eq!((&copy["body"], &copy["attributes"]), (&json!(2), &attributes));
    assert_eq!(dlq.run(&["dlq", "discard", "parked", "ops", "--parked", "--yes"]).ok(), "1 thrown away\n");
}

#[test]
fn showing_through_the_admin_address_leases_nothing() {
    let program = Program::new();
    let server = program.serve(&["--admin", "127.0.0.1:0"]);
    let (url, admin) = (server.url("serving on "), server.url("admin on ").trim_end_matches(')').to_owned());
    tokio::runtime::Runtime::new().unwrap().block_on(fail_four(&url));
    let dms = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat());
    // Somebody has them all: a look sees them all the same.
    dms(&["receive", "q", "g", "--dead-letters", "--wait", "1s", "--max", "4"]).ok();
    let shown = dms(&["-o", "json", "dlq", "show", "q", "g", "--admin", &admin, "--match", "tenant=1"]).json();
    let seen: Vec<_> = shown.as_array().unwrap().iter().map(|row| (&row["body"], &row["state"])).collect();
    assert_eq!(seen, [(&json!(1), &json!("leased")), (&json!(3), &json!("leased"))]);
    let wrong = dms(&["dlq", "show", "q", "g", "--admin", &url]).failed(1);
    assert!(wrong.contains("answered 404 Not Found: "), "{wrong}");
}
