//! `dlq`: looking at dead letters, sending them again, throwing them away.

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
        let one = ConsumeOptions { max_messages: 1, ..ConsumeOptions::default() };
        let batch = client.consume(&source, &one).await.unwrap();
        client.acknowledge(&source, &[(batch[0].handle.clone(), AckStatus::Fail)]).await.unwrap();
    }
}

#[test]
fn looking_takes_nothing() {
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
fn redriven_messages_come_again() {
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
        let lines = dlq.run(&["receive", queue, "g", "--wait", "1s"]).ok();
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((bodies("q"), bodies("repaired")), (vec![json!(0), json!(2)], vec![json!(1), json!(3)]));
}

#[test]
fn throwing_away_asks_first() {
    let dlq = Dlq::new();
    assert!(dlq.run(&["dlq", "discard", "q", "g"]).failed(2).contains("add --yes"));
    assert_eq!(dlq.run(&["dlq", "discard", "q", "g", "--dry-run"]).ok(), "4 would be thrown away\n");
    assert_eq!(dlq.run(&["dlq", "discard", "q", "g", "--match", "tenant=1", "--yes"]).ok(), "2 thrown away\n");
    assert_eq!(dlq.left(), 2);
}
