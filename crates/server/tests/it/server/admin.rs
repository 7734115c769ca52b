//! The admin address: health, metrics, and a view that leases nothing.

use std::time::Duration;

use dms_protocol::queue::{NewQueue, TagFilter};
use dms_server::{
    Project, Server, ServerConfig, StartQueue,
    broker::{Ack, AckStatus, GroupPath, LeaseRequest, NewMessage, Stream},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use super::PROJECT;

pub(super) fn config() -> ServerConfig {
    let mut project = Project::new(PROJECT);
    project.queues.push(StartQueue::new(NewQueue::new("orders").dead_letters_after(1)).group("g"));
    let any_port = Some(([127, 0, 0, 1], 0).into());
    ServerConfig::default().listen(any_port).admin(any_port).projects(vec![project])
}

pub(super) async fn get(address: std::net::SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (text[9..12].parse().unwrap(), text)
}

fn all() -> LeaseRequest {
    let (wait, ack_wait) = (Duration::from_secs(1), Duration::from_secs(30));
    LeaseRequest { max_messages: 10, max_bytes: 524_288, wait, ack_wait, filter: TagFilter::default() }
}

pub(super) fn json(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Health is red while the server stops; queues of the configuration are there from the start.
#[tokio::test]
async fn health_metrics_and_peek() {
    let server = Server::bind(config()).await.unwrap();
    let (api, admin) = (server.local_addr().unwrap(), server.admin_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));

    assert_eq!(get(admin, "/livez", "").await.0, 200);
    assert_eq!(get(admin, "/readyz", "").await.0, 200);
    assert_eq!(get(admin, "/nothing", "").await.0, 404);
    assert_eq!(get(api, "/metrics", "").await.0, 404, "the admin paths are on their own address");

    let queues = json(&get(admin, "/admin/queues", "").await.1);
    let (queue, group) = (&queues[0]["id"].as_str().unwrap(), queues[0]["groups"][0]["id"].as_str().unwrap());
    assert_eq!((&queues[0]["name"], &queues[0]["groups"][0]["name"]), (&"orders".into(), &"g".into()));

    let mut stream = TcpStream::connect(api).await.unwrap();
    let body = r#"{"messages":[{"body":"one","tags":["x"]},{"body":"two","delay_time":60000}]}"#;
    let request = format!(
        "POST /v2/{PROJECT}/queues/{queue}/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_string(&mut String::new()).await.unwrap();

    let path = format!("/admin/queues/{queue}/groups/{group}/messages");
    let peeked = json(&get(admin, &path, "").await.1);
    assert_eq!((&peeked[0]["message"]["body"], &peeked[0]["state"]), (&"one".into(), &"available".into()));
    assert_eq!((&peeked[1]["message"]["body"], &peeked[1]["state"]), (&"two".into(), &"delayed".into()));
    assert!(peeked[1]["left_ms"].as_u64().is_some_and(|left| (1..=60_000).contains(&left)), "{peeked}");
    let consumed = json(&get(api, &format!("/v2/{PROJECT}/queues/{queue}/groups/{group}/messages"), "").await.1);
    assert_eq!(consumed[0]["message"]["body"], "one", "the peek leased nothing");
    let peeked = json(&get(admin, &path, "").await.1);
    assert_eq!(peeked[0]["state"], "leased");
    assert_eq!(get(admin, &format!("{path}?stream=other"), "").await.0, 400);
    assert_eq!(json(&get(admin, &format!("{path}?stream=deadletters"), "").await.1), serde_json::json!([]));

    let (status, metrics) = get(admin, "/metrics", "Accept: application/openmetrics-text\r\n").await;
    assert_eq!(status, 200);
    for line in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "dms_server_produced_messages_total 2",
        "dms_server_consumed_messages_total 1",
        "dms_server_http_requests_total{operation=\"send\",code=\"201\"} 1",
        "dms_server_http_request_duration_seconds_count{operation=\"consume\"} 1",
        "dms_server_long_polls 0",
        "state=\"ready\"} 0",
        "queue=\"orders\",group=\"g\",state=\"in_flight\"} 1",
        "state=\"delayed\"} 1",
        "dms_server_oldest_unacked_age_seconds{project=\"b78a90ae2a134b4b8b2ba30acab4e23a\",queue=\"orders\"",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(!metrics.contains("\ndms_server_storage_free_bytes"), "memory has no free room: {metrics}");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

/// The broker counts redeliveries and dead letters, and measures syncs.
#[tokio::test]
async fn redeliveries_dead_letters_and_syncs_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config().data_dir(directory.path().to_owned());
    config.projects[0].queues[0].queue = NewQueue::new("orders").dead_letters_after(2);
    let server = Server::bind(config).await.unwrap();
    let (broker, admin) = (server.broker().clone(), server.admin_addr().unwrap());
    let queue = &broker.overview()[0];
    let (project, queue, group) = (queue.project.clone(), queue.queue.id.clone(), queue.groups[0].group.id.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));

    let message = NewMessage {
        json: r#"{"body":1,"attributes":{}}"#.into(),
        body_bytes: 1,
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    broker.append(&project, &queue, vec![message.clone(), message]).await.unwrap();
    let path = GroupPath { project, queue, group };
    for _ in 0..2 {
        let leased = broker.lease(&path, Stream::Messages, all()).await.unwrap();
        let failed = Ack { receipt: leased[0].receipt.clone(), status: AckStatus::Fail(None) };
        assert_eq!(broker.ack(&path, Stream::Messages, vec![failed]).await.unwrap().fail, 2);
    }

    let (_, metrics) = get(admin, "/metrics", "").await;
    for line in ["dms_server_redeliveries_total 2\n", "dms_server_dead_letters_total 1\n"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    let count = metrics.split_once("dms_server_fsync_duration_seconds_count ").unwrap().1;
    let commits: u32 = count.lines().next().unwrap().parse().unwrap();
    assert!(commits >= 3, "a send and two acknowledgements were committed: {commits}");
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

/// Queues of the configuration that are there already are left as they are.
#[tokio::test]
async fn start_queues_are_created_once() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let config = config()
            .data_dir(directory.path().to_owned())
            .listen(None::<std::net::SocketAddr>)
            .admin(None::<std::net::SocketAddr>);
        let server = Server::bind(config).await.unwrap();
        let queues = server.broker().queues(&PROJECT.into()).await.unwrap();
        assert_eq!(queues.len(), 1);
        assert_eq!(queues[0].group_count, 1);
        server.close().await;
    }
}

/// Damaged messages that are set aside appear in the metrics and the admin view, and are skipped on request.
#[tokio::test]
async fn damaged_messages_are_shown_and_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let config = || config().data_dir(directory.path().to_owned());
    let server = Server::bind(config()).await.unwrap();
    let queue = &server.broker().overview()[0];
    let (project, queue, group) = (queue.project.clone(), queue.queue.id.clone(), queue.groups[0].group.id.clone());
    let path = GroupPath { project: project.clone(), queue: queue.clone(), group };
    let message = |text: &str| NewMessage {
        json: format!(r#"{{"body":"{text}","attributes":{{}}}}"#).into(),
        body_bytes: 9,
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    server.broker().append(&project, &queue, vec![message("first"), message("second")]).await.unwrap();
    server.close().await;
    let file = directory.path().join("log/0000000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|window| window == b"first").unwrap();
    bytes[at] ^= 4;
    std::fs::write(&file, bytes).unwrap();

    let server = Server::bind(config()).await.unwrap();
    let (broker, admin) = (server.broker().clone(), server.admin_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let leased = broker.lease(&path, Stream::Messages, all()).await.unwrap();
    assert_eq!(leased.len(), 1, "the second one");

    let metric =
        "dms_server_damaged_messages{project=\"b78a90ae2a134b4b8b2ba30acab4e23a\",queue=\"orders\",group=\"g\"} ";
    let metrics = get(admin, "/metrics", "").await.1;
    assert!(metrics.contains(&format!("{metric}1")));
    let free = metrics.lines().find_map(|line| line.strip_prefix("dms_server_storage_free_bytes "));
    assert!(free.unwrap().parse::<u64>().unwrap() > 0);
    let queues = json(&get(admin, "/admin/queues", "").await.1);
    assert_eq!(queues[0]["groups"][0]["damaged_messages"], 1);
    let shown = json(&get(admin, "/admin/damaged", "").await.1);
    assert_eq!(
        (&shown[0]["queue"], &shown[0]["group"], &shown[0]["sequence"]),
        (&"orders".into(), &"g".into(), &1.into())
    );
    assert_eq!((&shown[0]["stream"], &shown[0]["file"]), (&"messages".into(), &file.display().to_string().into()));
    assert!(shown[0]["offset"].as_u64().unwrap() < at as u64, "{shown}");

    assert_eq!(get(admin, "/admin/damaged/skip?queue=orders", "").await.0, 405, "not by a look");
    assert_eq!(post(admin, "/admin/damaged/skip").await.0, 400, "not all queues at once");
    for (query, said) in [
        ("queue=other", "\"other\""),
        ("queue=orders&project=other", "\"other\""),
        ("queue=orders&group=other", "\"other\""),
        ("queue=orders&sequence=2", "no damaged message 2"),
    ] {
        let (status, answer) = post(admin, &format!("/admin/damaged/skip?{query}")).await;
        let text = json(&answer)["error_msg"].as_str().unwrap().to_owned();
        assert!(status == 404 && text.contains(said), "{query}: {status} {text}");
        let (status, answer) = get(admin, &format!("/admin/damaged?{query}"), "").await;
        let expected = if query.contains("sequence") { 200 } else { 404 };
        assert_eq!(status, expected, "{query}: {answer}");
    }
    assert_eq!(get(admin, "/admin/damaged?queue=orders&stream=other", "").await.0, 400);
    assert_eq!(json(&post(admin, "/admin/damaged/skip?queue=orders&group=g&sequence=1").await.1)["skipped"], 1);
    assert_eq!(json(&post(admin, "/admin/damaged/skip?queue=orders").await.1)["skipped"], 0, "nothing is left");
    assert_eq!(json(&get(admin, "/admin/damaged", "").await.1), serde_json::json!([]));
    assert!(get(admin, "/metrics", "").await.1.contains(&format!("{metric}0")));
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

/// Every answer has the id of its request, and every error has it in its body, whoever refuses the request.
#[tokio::test]
async fn answers_carry_the_id_of_their_request() {
    let server = Server::bind(config().admin_token(dms_protocol::secret::Secret::from("token"))).await.unwrap();
    let admin = server.admin_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    let token = "Authorization: Bearer token\r\n";
    let id_of = |answer: &str| {
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        id.unwrap_or_else(|| panic!("no id: {answer}")).to_owned()
    };
    for (path, headers, status) in [
        ("/livez", "", 200),
        ("/admin/queues", token, 200),
        ("/admin/queues", "", 401),
        ("/admin/damaged?queue=nope", token, 404),
        ("/admin/damaged?queue=%ff", token, 400),
        ("/admin/backup", token, 405),
        ("/nothing", token, 404),
    ] {
        let (found, answer) = get(admin, path, headers).await;
        assert_eq!(found, status, "{path}: {answer}");
        let id = id_of(&answer);
        assert_eq!(id.len(), 36, "{answer}");
        if status >= 400 {
            assert_eq!(json(&answer)["request_id"], *id, "{path}: {answer}");
        }
        let (_, echoed) = get(admin, path, &format!("{headers}X-Request-Id: mine\r\n")).await;
        assert_eq!(id_of(&echoed), "mine", "{path}: {echoed}");
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

pub(super) async fn post(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (text[9..12].parse().unwrap(), text)
}
