//! The client and the producer against the embedded server: in the same process and over sockets, unsigned, signed and
//! with tokens, on both versions of the API.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use dms_server::{Project, Server, ServerConfig, clock::Clock};
use dms_worker::{
    ApiVersion, Client, Producer,
    auth::{IamCredentials, Scope},
    client::{ConsumeOptions, ErrorCode, SendOptions},
    message::{AckStatus, Message, ReceivedMessage},
    queue::{NewQueue, ProjectId, QueueMode, QueueTag, SourcePath, TagFilter},
    transport::InProcess,
};
use serde_json::{Value, json};

const VERSIONS: [ApiVersion; 2] = [ApiVersion::V2, ApiVersion::V1_0];

async fn server(projects: Vec<Project>) -> Server {
    let clock = Clock::following_tokio(SystemTime::now());
    Server::bind(ServerConfig::default().projects(projects).clock(clock)).await.unwrap()
}

fn client(server: &Server, version: ApiVersion) -> Client {
    let transport = Arc::new(InProcess::new(server.service()));
    Client::builder("http://dms.test", "p1").transport(transport).api_version(version).build().unwrap()
}

async fn open() -> (Server, Client) {
    let server = server(vec![Project::new("p1")]).await;
    let client = client(&server, ApiVersion::V2);
    (server, client)
}

/// A queue with dead letters after `failures`, and one group.
async fn source(client: &Client, mode: QueueMode, failures: u32) -> SourcePath {
    let queue = client.create_queue(NewQueue::new("orders").mode(mode).dead_letters_after(failures)).await.unwrap();
    let group = client.create_groups(&queue.id, &["billing"]).await.unwrap().remove(0).0;
    SourcePath::messages(queue.id, group)
}

fn all(received: &[ReceivedMessage], status: AckStatus) -> Vec<(dms_worker::message::AckHandle, AckStatus)> {
    received.iter().map(|message| (message.handle.clone(), status)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_is_received_as_it_was_sent() {
    for version in VERSIONS {
        let server = server(vec![Project::new("p1")]).await;
        let client = client(&server, version);
        let source = source(&client, QueueMode::Normal, 3).await;
        let message = Message::json(&json!({"n": [1, 2.5, null], "text": "队列 \"quoted\""}))
            .unwrap()
            .attribute("count", 7)
            .attribute("flag", false)
            .tag("red")
            .tag("blue");
        let options = SendOptions::new().return_ids(true);
        let sent = client.send_with(&source.queue, std::slice::from_ref(&message), options).await.unwrap();
        assert!(sent[0].as_ref().unwrap().id.is_some());
        let received = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
        assert_eq!(received[0].body, message.body);
        assert_eq!(received[0].attributes, message.attributes);
        assert_eq!(received[0].tags, message.tags);
        let outcome = client.acknowledge(&source, &all(&received, AckStatus::Success)).await.unwrap();
        assert_eq!((outcome.success, outcome.fail), (1, 0));
        let error = client.acknowledge(&source, &all(&received, AckStatus::Success)).await.unwrap_err();
        assert!(error.is_lost_lease() && error.code() == Some(ErrorCode::LEASE_LOST), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_counted_consumed_and_acknowledged() {
    for version in VERSIONS {
        let server = server(vec![Project::new("p1")]).await;
        let client = client(&server, version);
        let source = source(&client, QueueMode::Normal, 1).await;
        client.send(&source.queue, &[Message::text("poison")]).await.unwrap()[0].as_ref().unwrap();
        let received = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
        client.acknowledge(&source, &all(&received, AckStatus::Fail)).await.unwrap();
        let group = client.find_group(&source.queue, "billing").await.unwrap();
        assert_eq!((group.produced_dead_letters, group.available_dead_letters), (Some(1), Some(1)));
        let dead = SourcePath::dead_letters(source.queue.clone(), source.group.clone());
        let received = client.consume(&dead, &ConsumeOptions::default()).await.unwrap();
        assert_eq!(received[0].body.parse::<String>().unwrap(), "poison");
        client.acknowledge(&dead, &all(&received, AckStatus::Success)).await.unwrap();
        assert!(client.consume(&dead, &ConsumeOptions::default()).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn every_other_operation_works_on_both_versions() {
    for version in VERSIONS {
        let server = server(vec![Project::new("p1")]).await;
        let client = client(&server, version);
        let created = client.create_queue(NewQueue::new("q").mode(QueueMode::Fifo).description("d")).await.unwrap();
        let queue = client.queue(&created.id).await.unwrap();
        assert_eq!((queue.mode, queue.description.as_str(), queue.dead_letters), (QueueMode::Fifo, "d", Some(false)));
        assert_eq!(client.queues().await.unwrap(), std::slice::from_ref(&queue));
        assert_eq!(client.find_queue("q").await.unwrap().id, queue.id);
        assert!(client.create_queue(NewQueue::new("q")).await.unwrap_err().is_exists());
        let groups = client.create_groups(&queue.id, &["a", "b"]).await.unwrap();
        assert!(client.create_groups(&queue.id, &["c", "d"]).await.unwrap_err().is_limit());
        client.delete_group(&queue.id, &groups[0].0).await.unwrap();
        assert_eq!(client.groups(&queue.id).await.unwrap()[0].name, "b");
        let tag = |key: &str, value: &str| QueueTag { key: key.into(), value: value.into() };
        client.put_tags(&queue.id, &[tag("env", "test"), tag("team", "x")]).await.unwrap();
        client.delete_tags(&queue.id, &[("team", None), ("gone", None)]).await.unwrap();
        assert_eq!(client.tags(&queue.id).await.unwrap(), [tag("env", "test")]);
        assert_eq!(client.project_tags().await.unwrap()[0].values, ["test"]);
        let quotas = client.quotas().await.unwrap();
        assert_eq!(quotas.iter().find(|quota| quota.kind == "queue").unwrap().used, Some(1));
        client.delete_queue(&queue.id).await.unwrap();
        assert!(client.queue(&queue.id).await.unwrap_err().is_not_found());
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_keeps_its_label_rule() {
    let (_server, client) = open().await;
    let source = source(&client, QueueMode::Normal, 3).await;
    let options = |tags: &[&str]| {
        ConsumeOptions::new()
            .poll_wait(Duration::from_secs(1))
            .filter(TagFilter { tags: tags.iter().map(|&tag| tag.to_owned()).collect(), ..TagFilter::default() })
    };
    client.send(&source.queue, &[Message::text("a").tag("red"), Message::text("b").tag("blue")]).await.unwrap();
    let received = client.consume(&source, &options(&["blue"])).await.unwrap();
    assert_eq!(received.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["\"b\""]);
    let error = client.consume(&source, &options(&["red"])).await.unwrap_err();
    assert!(!error.is_retryable() && error.code() == Some(ErrorCode::CONSUME_FAILED), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_the_message_that_comes() {
    let (_server, client) = open().await;
    let source = source(&client, QueueMode::Normal, 3).await;
    let options = ConsumeOptions::new().poll_wait(Duration::from_secs(60));
    let started = tokio::time::Instant::now();
    let poll = client.consume(&source, &options);
    let send = async {
        tokio::time::advance(Duration::from_secs(5)).await;
        let delayed = Message::text("x").delay(Duration::from_secs(7));
        client.send(&source.queue, &[delayed]).await.unwrap();
    };
    let (received, ()) = tokio::join!(poll, send);
    assert_eq!(received.unwrap().len(), 1);
    assert_eq!(started.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_producer_fills_a_fifo_queue_in_order() {
    let (_server, client) = open().await;
    let source = source(&client, QueueMode::Fifo, 3).await;
    let producer = Producer::builder(client.clone(), source.queue.clone()).ordered(true).build().unwrap();
    let results = producer.send_all((0..95).map(|n| Message::json(&n).unwrap())).await;
    assert!(results.iter().all(Result::is_ok));
    let mut seen = Vec::new();
    while seen.len() < 95 {
        let received = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
        client.acknowledge(&source, &all(&received, AckStatus::Success)).await.unwrap();
        seen.extend(received.iter().map(|message| message.body.parse::<u64>().unwrap()));
    }
    assert!(seen.into_iter().eq(0..95));
}

#[tokio::test]
async fn keys_and_tokens_work_over_sockets() {
    let project = Project::new("p1").access_key("AK1", "S3CRET").user("u", "pw", "d");
    let config =
        ServerConfig::default().listen("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()).projects(vec![project]);
    let server = Server::bind(config).await.unwrap();
    let address = format!("http://{}", server.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));

    let signed = Client::builder(&address, "p1").access_key("AK1", "S3CRET").build().unwrap();
    let source = source(&signed, QueueMode::Normal, 3).await;
    signed.send(&source.queue, &[Message::json(&json!({"a b": "ü"})).unwrap()]).await.unwrap()[0].as_ref().unwrap();
    let filter = TagFilter { tags: vec!["x-1".into(), "a_b".into()], ..TagFilter::default() };
    let options = ConsumeOptions::new().filter(filter).poll_wait(Duration::from_secs(1));
    assert!(signed.consume(&source, &options).await.unwrap().is_empty());

    let iam = |password: &str| {
        IamCredentials::new(&address, Scope::ProjectName("p1".into())).user("u", "d").password(password)
    };
    let token = Client::builder(&address, "").iam(iam("pw")).build().unwrap();
    assert_eq!(token.queues().await.unwrap().len(), 1);
    let named = Client::builder(&address, ProjectId::from("")).access_key("AK1", "S3CRET").project_name("p1", &address);
    assert_eq!(named.build().unwrap().queues().await.unwrap().len(), 1);

    let wrong = Client::builder(&address, "p1").access_key("AK1", "wrong").build().unwrap();
    assert!(wrong.queues().await.unwrap_err().is_auth());
    let wrong = Client::builder(&address, "").iam(iam("n0tIt")).build().unwrap();
    let error = wrong.queues().await.unwrap_err();
    assert!(error.is_auth() && !error.to_string().contains("n0tIt"), "{error}");
    let unsigned = Client::builder(&address, "p1").build().unwrap();
    assert!(unsigned.queues().await.unwrap_err().is_auth());

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(signed.queues().await.unwrap_err().is_connect());
}

#[tokio::test(start_paused = true)]
async fn bodies_come_back_byte_for_byte() {
    let (_server, client) = open().await;
    let source = source(&client, QueueMode::Normal, 3).await;
    for body in ["null", "\"\\u00e9\\ud83d\\ude00\"", "{\"a\" :  1e-400, \"b\":[ ]}", "12345678901234567890.10", "\"\""]
    {
        let message = Message::new(dms_worker::message::Body::raw(body).unwrap());
        client.send(&source.queue, &[message]).await.unwrap()[0].as_ref().unwrap();
        let received = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
        assert_eq!(received[0].body.as_str(), body);
        client.acknowledge(&source, &all(&received, AckStatus::Success)).await.unwrap();
    }
    let nested = Value::Array(vec![json!({"deep": [[[]]]}); 20]);
    let attributes = Message::text("x").attribute("nested", nested.clone());
    client.send(&source.queue, &[attributes]).await.unwrap();
    let received = client.consume(&source, &ConsumeOptions::default()).await.unwrap();
    assert_eq!(received[0].attributes.value("nested"), Some(nested));
}
