//! Messages are unchanged, byte for byte: everything that the server accepts passes unchanged through stores, client, every delivery,
//! publishers, copies, dumps and `send`.
//!
//! The generated messages are the same in each run. `DMS_UNCHANGED_CASES` sets how many there are.

use std::{
    collections::BTreeMap,
    future::pending,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State};
use dms_server::{Server, ServerConfig};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckStatus, Attributes, Body, Message, ReceivedMessage},
    queue::{NewQueue, SourcePath, Stream},
    redrive::Redrive,
    transport::InProcess,
};
use dms_worker_cli::{
    config::{Request, load},
    sidecar::Sidecar,
};
use http::{HeaderMap, StatusCode, Uri};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::Program;

/// Nothing here takes longer unless it is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How deep a message may nest.
const DEEPEST: usize = 60;

/// A message as its texts. The attribute `n` is its place among the messages.
#[derive(Clone, Debug)]
struct Case {
    body: String,
    attributes: String,
}

impl Case {
    fn message(&self) -> Message {
        let mut message = Message::new(Body::raw(self.body.clone()).unwrap());
        message.attributes = Attributes::raw(self.attributes.clone()).unwrap();
        message
    }
}

fn blanks() -> BoxedStrategy<String> {
    prop_oneof![12 => Just(""), 2 => Just(" "), 1 => Just("\n  "), 1 => Just("\t"), 1 => Just("\r\n")]
        .prop_map(str::to_owned)
        .boxed()
}

fn string() -> BoxedStrategy<String> {
    let escapes = [
        "\\u0000",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u00e9",
        "\\u00E9",
        "\\ud83d\\ude00",
        "\\uD83D\\uDE00",
        "\\u2028",
        "\\u007f",
        "\\\\u0041",
        "\u{7f}",
        "\u{2028}",
        "队列",
        "😀",
        "{",
        "}",
        ", ",
    ];
    let piece = prop_oneof!["[ !#-\\[\\]-~]{1,5}", prop::sample::select(escapes.to_vec()).prop_map(str::to_owned)];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat())).boxed()
}

/// A JSON text. Names of objects may stand there twice.
fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "-?(0|[1-9][0-9]{0,29})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        let item =
            (blanks(), inner.clone(), blanks()).prop_map(|(before, item, behind)| before + &item + &behind).boxed();
        let name = prop::sample::select(&["\"a\"", "\"b\"", "\"\\u0061\"", "\"\""][..]);
        let member = (blanks(), name, blanks(), item.clone())
            .prop_map(|(before, name, behind, value)| format!("{before}{name}{behind}:{value}"));
        prop_oneof![
            prop::collection::vec(item, 1..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 1..4).prop_map(|members| format!("{{{}}}", members.join(","))),
            blanks().prop_map(|blanks| format!("[{blanks}]")),
            blanks().prop_map(|blanks| format!("{{{blanks}}}")),
        ]
    })
    .boxed()
}

/// The messages of every test here.
fn cases() -> Vec<Case> {
    let count = std::env::var("DMS_UNCHANGED_CASES").map_or(64, |count| count.parse().unwrap());
    let mut runner = TestRunner::deterministic();
    let drawn = (value(), value(), blanks());
    let mut bodies: Vec<_> = (0..count).map(|_| drawn.new_tree(&mut runner).unwrap().current()).collect();
    let deep = |depth, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for odd in [
        "null",
        "-0",
        "1e3",
        "1.10",
        "4.9e-324",
        "1.7976931348623157e308",
        "123456789012345678901234567890",
        "\"\\u0000\"",
    ] {
        bodies.push((odd.to_owned(), odd.to_owned(), String::new()));
    }
    let twice = "{\"a\":1,\"a\":{\"b\":[],\"b\":1e3},\"\\u0061\":2}".to_owned();
    bodies.push((twice.clone(), twice, "\n".to_owned()));
    bodies.push((deep(DEEPEST, "[", "]"), deep(DEEPEST - 1, "[", "]"), String::new()));
    bodies.push((deep(DEEPEST, "{\"a\":", "}"), deep(DEEPEST - 1, "{\"\": ", "}"), String::new()));
    let case = |(n, (body, value, blanks))| Case { body, attributes: format!("{{\"n\":{n},{blanks}\"v\":{value}}}") };
    bodies.into_iter().enumerate().map(case).collect()
}

/// The text in one line: as it is, or where it has line breaks its tokens alone.
fn in_one_line(json: &str) -> String {
    if !json.contains(['\n', '\r']) {
        return json.to_owned();
    }
    let mut strings = json.split('"').peekable();
    let (mut line, mut inside) = (String::new(), false);
    while let Some(piece) = strings.next() {
        match inside {
            true => line.push_str(piece),
            false => line.extend(piece.chars().filter(|c| !c.is_ascii_whitespace())),
        }
        // A quote with an odd number of backslashes before it belongs to the string.
        let escaped = inside && piece.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        inside = if escaped { inside } else { !inside };
        line.push_str(if strings.peek().is_some() { "\"" } else { "" });
    }
    line
}

/// The texts that arrived on one way, by their positions.
#[derive(Debug, Default)]
struct Came(BTreeMap<u64, (String, Attributes)>);

impl Came {
    fn take(&mut self, body: &str, mut attributes: Attributes) {
        let n = attributes.get_u64("n").unwrap_or_else(|| panic!("{attributes:?}: {}", attributes.to_json()));
        attributes.retain(|name| !name.starts_with("dms-"));
        self.0.insert(n, (body.to_owned(), attributes));
    }

    fn of(messages: &[ReceivedMessage]) -> Self {
        let mut came = Self::default();
        messages.iter().for_each(|message| came.take(message.body.as_str(), message.attributes.clone()));
        came
    }

    fn of_lines(lines: &str) -> Self {
        let mut came = Self::default();
        lines.lines().for_each(|line| came.take_item(line));
        came
    }

    /// An object with `body` and `attributes`.
    fn take_item(&mut self, json: &str) {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow)]
            body: &'a RawValue,
            attributes: Attributes,
        }
        let item: Item<'_> = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        self.take(item.body.get(), item.attributes);
    }

    /// All messages arrived, with the texts that `form` makes of the sent ones.
    #[track_caller]
    fn check(&self, way: &str, cases: &[Case], form: impl Fn(&str) -> String) {
        assert_eq!(self.0.len(), cases.len(), "{way}");
        for (n, case) in cases.iter().enumerate() {
            let (body, attributes) = &self.0[&(n as u64)];
            assert_eq!(*body, form(&case.body), "{way}: the body of message {n}");
            let sent = Attributes::raw(form(&case.attributes)).unwrap();
            // In the order of sending. White space between them may be removed where a copy gets additional attributes.
            let texts = |attributes: &Attributes| -> Vec<_> {
                attributes.iter().map(|(name, value)| (name.to_owned(), value.get().to_owned())).collect()
            };
            assert_eq!(texts(attributes), texts(&sent), "{way}: message {n}: {case:?}");
        }
    }
}

fn as_it_is(text: &str) -> String {
    text.to_owned()
}

/// Settles all messages of a group and gives them.
async fn consume(client: &Client, queue: &str, wanted: usize) -> Vec<ReceivedMessage> {
    let source = source(client, queue).await;
    let mut all = Vec::new();
    let take = async {
        while all.len() < wanted {
            let batch = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
            let acks: Vec<_> = batch.iter().map(|message| (message.handle.clone(), AckStatus::Success)).collect();
            if !acks.is_empty() {
                client.acknowledge(&source, &acks).await.unwrap();
            }
            all.extend(batch);
        }
    };
    timeout(TEST_TIMEOUT, take).await.unwrap_or_else(|_| panic!("not all messages of {queue} come"));
    all
}

async fn source(client: &Client, queue: &str) -> SourcePath {
    let queue = client.find_queue(queue).await.unwrap().id;
    let group = client.find_group(&queue, "g").await.unwrap().id;
    SourcePath { queue, group, stream: Stream::Messages }
}

async fn send(client: &Client, queue: &str, cases: &[Case]) {
    let queue = client.find_queue(queue).await.unwrap().id;
    let messages: Vec<_> = cases.iter().map(Case::message).collect();
    for batch in messages.chunks(10) {
        for outcome in client.send(&queue, batch).await.unwrap() {
            outcome.unwrap();
        }
    }
}

/// Has each message of the queue fail once, which makes dead letters of them.
async fn fail(client: &Client, queue: &str, count: usize) {
    let source = source(client, queue).await;
    for _ in 0..count {
        let one = ConsumeOptions::new().max_messages(1);
        let batch = client.consume(&source, &one).await.unwrap();
        client.acknowledge(&source, &[(batch[0].handle.clone(), AckStatus::Fail)]).await.unwrap();
    }
}

#[tokio::test]
async fn bodies_are_unchanged_through_client_and_stores() {
    let cases = cases();
    let dir = tempfile::tempdir().unwrap();
    for data_dir in [None, Some(dir.path().to_owned())] {
        let way = format!("a store in {data_dir:?}");
        let config = ServerConfig::default().data_dir(data_dir.clone());
        let mut server = Server::bind(config.clone()).await.unwrap();
        let connect = |server: &Server| {
            let transport = Arc::new(InProcess::new(server.service()));
            Client::builder("http://in.process", "local").transport(transport).build().unwrap()
        };
        let mut client = connect(&server);
        let queue = client.create_queue(NewQueue::new("q")).await.unwrap().id;
        client.create_groups(&queue, &["g"]).await.unwrap();
        send(&client, "q", &cases).await;
        if data_dir.is_some() {
            drop(client);
            server.close().await;
            server = Server::bind(config).await.unwrap();
            client = connect(&server);
        }
        let received = consume(&client, "q", cases.len()).await;
        Came::of(&received).check(&way, &cases, as_it_is);
        for (message, case) in received.iter().zip(&cases) {
            assert_eq!(message.attributes.to_json(), case.attributes, "{way}");
        }
        server.close().await;
    }
}

/// Requests as an application got them, by path.
type Requests = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

async fn application(requests: Requests) -> String {
    async fn answer(State(requests): State<Requests>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
        let body = String::from_utf8(body.to_vec()).unwrap();
        let fails = uri.path() == "/failing";
        requests.lock().unwrap().push((uri.path().to_owned(), headers, body));
        if fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(requests);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address.to_string()
}

fn configuration(app: &str, dir: &Path) -> String {
    let dir = dir.display();
    std::fs::write(
        format!("{dir}/lines.sh"),
        "while IFS= read -r line; do
  printf '%s\\n' \"$line\" >> \"$1\"
  id=${line#'{\"id\":'}
  echo \"{\\\"id\\\":${id%%,*},\\\"outcome\\\":\\\"done\\\"}\"
done
",
    )
    .unwrap();
    format!(
        "\
server:
  listen: 127.0.0.1:0
  quotas: {{groups_per_queue: 6}}
  queues:
    - {{name: orders, groups: [raw, batch, events, eventbatch, command, lines]}}
    - {{name: failing, groups: [g]}}
    - {{name: parked, groups: [g]}}
    - {{name: published, groups: [g]}}
    - {{name: evented, groups: [g]}}
    - {{name: dumped, max_consume_count: 1, groups: [g]}}
    - {{name: redriven, max_consume_count: 1, groups: [g]}}
    - {{name: again, groups: [g]}}
    - {{name: redriven-again, groups: [g]}}
workers:
  - {{queue: orders, group: raw, handler: {{http: {{url: 'http://{app}/raw'}}}}}}
  - {{queue: orders, group: batch, handler: {{http: {{url: 'http://{app}/batch', batch: consumed}}}}}}
  - {{queue: orders, group: events, handler: {{http: {{url: 'http://{app}/events', format: cloudevents}}}}}}
  - {{queue: orders, group: eventbatch, handler: {{http: {{url: 'http://{app}/eventbatch', format: cloudevents, batch: consumed}}}}}}
  - {{queue: orders, group: command, concurrency: 1, handler: {{command: [sh, -c, 'cat >> {dir}/command']}}}}
  - {{queue: orders, group: lines, handler: {{command: {{run: [sh, '{dir}/lines.sh', '{dir}/lines'], mode: json_lines}}}}}}
  - {{queue: failing, group: g, handler: {{http: {{url: 'http://{app}/failing'}}}}, on_failure: {{republish: {{max_attempts: 2, backoff: 1ms, then: {{park: parked}}}}}}}}
publishers:
  - {{queue: published, listen: '127.0.0.1:0'}}
  - {{queue: evented, listen: '127.0.0.1:0'}}
"
    )
}

/// The header as JSON in ASCII: what the attributes are in it.
fn in_ascii(json: &str) -> String {
    let escaped = |c: char| match c {
        '\u{21}'..='\u{7e}' | ' ' | '\t' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
    };
    in_one_line(json).chars().map(escaped).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_unchanged_through_deliveries_publishers_copies_and_commands() {
    let cases = cases();
    let program = Program::new();
    let requests = Requests::default();
    let app = application(requests.clone()).await;
    let file = program.file("sidecar.yaml", &configuration(&app, program.dir()));
    let sidecar =
        Sidecar::start(load(&Request::new().file(Path::new(&file).to_owned())).unwrap().config).await.unwrap();
    let url = sidecar.server_url().unwrap();
    let publishers = sidecar.publisher_urls();
    let client = Client::builder(&url, "local").build().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(sidecar.run(stop.clone()));

    for queue in ["orders", "failing", "dumped", "redriven"] {
        send(&client, queue, &cases).await;
    }
    publish(&publishers, &cases).await;
    fail(&client, "dumped", cases.len()).await;
    fail(&client, "redriven", cases.len()).await;
    tokio::task::block_in_place(|| {
        let cli = |args: &[&str]| program.run(&[&["--endpoint", &url], args].concat()).ok();
        cli(&["dlq", "dump", "dumped", "g", "--ack", "--file", "dump"]);
        Came::of_lines(&std::fs::read_to_string(program.dir().join("dump")).unwrap()).check(
            "dump",
            &cases,
            in_one_line,
        );
        cli(&["send", "again", "--file", "dump"]);
        let lines = cli(&["receive", "--ack", "again", "g", "--max", "100000"]);
        Came::of_lines(&lines).check("receive of what send sent", &cases, in_one_line);
    });
    let mut dead = source(&client, "redriven").await;
    dead.stream = Stream::DeadLetters;
    let to = client.find_queue("redriven-again").await.unwrap().id;
    Redrive::new(client.clone(), dead).to(to).run(pending::<()>()).await.unwrap();
    for (queue, way) in [
        ("redriven-again", "redrive"),
        ("parked", "republish and park"),
        ("published", "a publisher"),
        ("evented", "events to a publisher"),
    ] {
        let received = consume(&client, queue, cases.len()).await;
        let mut came = Came::default();
        for message in &received {
            // The event's number is the message's.
            let mut attributes = message.attributes.clone();
            if let (Some(n), true) = (attributes.remove("ce-n"), queue == "evented") {
                let case = &cases[n.get().parse::<usize>().unwrap()];
                assert_eq!(attributes.get("ce-long").unwrap().get(), "12345678901234567890123");
                attributes = Attributes::raw(case.attributes.clone()).unwrap();
            }
            came.take(message.body.as_str(), attributes);
        }
        came.check(way, &cases, as_it_is);
    }
    until_all_are_delivered(&client, cases.len()).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    for file in ["command", "lines"] {
        let lines = std::fs::read_to_string(program.dir().join(file)).unwrap();
        Came::of_lines(&lines).check(file, &cases, in_one_line);
    }
    check_requests(&requests.lock().unwrap(), &cases);
}

async fn publish(publishers: &[String], cases: &[Case]) {
    let item = |case: &Case| format!("{{\"body\":{},\"attributes\": {}}}", case.body, case.attributes);
    let event = |(n, case): (usize, &Case)| {
        let head = format!(
            "\"specversion\":\"1.0\",\"id\":\"{n}\",\"source\":\"/s\",\"type\":\"t\",\"n\":{n},\"long\":12345678901234567890123"
        );
        format!("{{{head},\"data\": {}}}", case.body)
    };
    let items: Vec<_> = cases.iter().map(item).collect();
    let events: Vec<_> = cases.iter().enumerate().map(event).collect();
    let http = reqwest::Client::new();
    for (url, texts, content_type) in
        [(&publishers[0], items, "application/json"), (&publishers[1], events, "application/cloudevents-batch+json")]
    {
        let list = format!("[{}]", texts.join(", "));
        let answer = http.post(url).header("content-type", content_type).body(list).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
}

async fn until_all_are_delivered(client: &Client, count: usize) {
    let queue = client.find_queue("orders").await.unwrap().id;
    let wait = async {
        while !client.groups(&queue).await.unwrap().iter().all(|group| group.consumed_messages == count as u64) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_TIMEOUT, wait).await.expect("not all messages are delivered");
}

fn check_requests(requests: &[(String, HeaderMap, String)], cases: &[Case]) {
    let of = |path: &'static str| requests.iter().filter(move |(got, ..)| got == path);
    for (path, in_batch) in [("/raw", false), ("/events", false), ("/batch", true)] {
        let mut came = Came::default();
        for (_, headers, body) in of(path) {
            if in_batch {
                let items: Vec<&RawValue> = serde_json::from_str(body).unwrap();
                items.iter().for_each(|item| came.take_item(item.get()));
                continue;
            }
            let header = headers["dms-attributes"].to_str().unwrap();
            let attributes = Attributes::raw(header.to_owned()).unwrap();
            let case = &cases[usize::try_from(attributes.get_u64("n").unwrap()).unwrap()];
            assert_eq!(header, in_ascii(&case.attributes));
            came.take(body, Attributes::raw(case.attributes.clone()).unwrap());
        }
        came.check(path, cases, as_it_is);
    }
    let mut came = Came::default();
    for (_, headers, body) in of("/eventbatch") {
        assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
        let events: Vec<Box<RawValue>> = serde_json::from_str(body).unwrap();
        for event in events {
            let event = Attributes::raw(event.get().to_owned()).unwrap();
            let case = &cases[usize::try_from(event.get_u64("n").unwrap()).unwrap()];
            came.take(event.get("data").unwrap().get(), Attributes::raw(case.attributes.clone()).unwrap());
        }
    }
    came.check("/eventbatch", cases, as_it_is);
}
