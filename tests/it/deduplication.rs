//! Deduplication keys of the library: sends whose answers are lost are repeated and stored once, and a service that keeps no keys is
//! refused.

use std::time::Duration;

use dms_server::{
    Operation,
    faults::{Fault, FaultRule},
};
use dms_worker::{
    Message, NewQueue, Producer, SendOptions,
    client::SentMessage,
    producer::{ProducerMetrics, SendError},
    queue::QueueId,
    testing::TestServer,
};

use crate::script::{Play, Script};

const KEYS: &str = "release, deduplication";

fn keyed(key: &str) -> Message {
    Message::text(key).deduplication_key(key)
}

#[tokio::test(start_paused = true)]
async fn sends_whose_answers_are_lost_are_repeated_and_stored_once() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    let producer = Producer::builder(server.client(), group.queue_id().clone()).return_ids(true).build().unwrap();
    for (fault, probability) in [(Fault::LostAnswer, 0.4), (Fault::Duplicate, 0.3), (Fault::Reset, 0.3)] {
        server.faults().add(FaultRule::new(fault, probability).on(Operation::Send));
    }
    let messages = (0..200).map(|number| keyed(&format!("order-{}", number % 150)));
    let results = producer.send_all(messages).await;
    server.faults().clear();
    let sent: Vec<_> = results.into_iter().map(|result| result.unwrap()).collect();
    let ids: Vec<_> = sent.iter().map(|sent| sent.id.clone().unwrap()).collect();
    assert_eq!(ids[..50], ids[150..], "a duplicate has the id of the stored message");
    assert!(sent[150..].iter().all(|sent| sent.duplicate), "the sender is told");
    assert_eq!(group.waiting::<String>().await.len(), 150);
}

#[tokio::test(start_paused = true)]
async fn the_sender_is_told_of_a_duplicate_and_the_metrics_count_it() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    let metrics = ProducerMetrics::new();
    let producer = Producer::builder(server.client(), group.queue_id().clone()).metrics(&metrics).build().unwrap();
    let sent = |sent: Result<SentMessage, SendError>| sent.unwrap().duplicate;
    assert!(!sent(producer.send(keyed("nightly")).await));
    assert!(sent(producer.send(keyed("nightly")).await));
    assert!(!sent(producer.send(Message::text("nightly")).await), "without a key nothing is a duplicate");
    let outcomes = server.client().send(group.queue_id(), &[keyed("nightly"), keyed("other")]).await.unwrap();
    let told: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().duplicate).collect();
    assert_eq!(told, [true, false]);
    let report = producer.close(Duration::from_secs(5)).await;
    assert_eq!((report.sent, report.duplicates), (3, 1));
    let counted = metrics.encode();
    let mut counted = counted.lines().filter(|line| line.starts_with("dms_producer_duplicate_messages_total{"));
    assert!(counted.next().is_some_and(|line| line.ends_with(" 1")));
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_key_is_not_repeated_with_those_that_have_one() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    let client = server.client();
    client.send(group.queue_id(), &[keyed("first")]).await.unwrap();
    server.faults().add(FaultRule::new(Fault::LostAnswer, 1.0).on(Operation::Send));
    let error = client.send(group.queue_id(), &[keyed("a"), Message::text("b")]).await.unwrap_err();
    assert!(error.is_unsure());
    let window = Duration::from_secs(1);
    let short = keyed("short").deduplication_window(window);
    assert!(client.send(group.queue_id(), &[short]).await.unwrap_err().is_unsure());
    server.faults().clear();
    assert_eq!(group.waiting::<String>().await, ["first", "a", "b", "short"], "each was sent once");
}

#[tokio::test]
async fn a_service_that_keeps_no_keys_is_refused() {
    let script = Script::new([Play::Answer(200, r#"{"quotas":{"resources":[]}}"#)]);
    let error = script.client().send(&QueueId::from("q1"), &[Message::text("plain"), keyed("k")]).await.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("deduplication key is set for a service that does not announce"), "{said}");
    assert!(error.is_limit() && !error.is_retryable());
    assert_eq!(script.requests().len(), 1, "the message is not sent: {:?}", script.requests());
}

#[tokio::test]
async fn keys_are_sent_to_a_service_that_announces_them() {
    let sent = r#"{"messages":[{"error":null,"error_code":null,"state":0,"duplicate":true}]}"#;
    let refused = r#"{"error_code":"DMS.10240311","error_msg":"no right"}"#;
    for (status, first) in [(200, r#"{"quotas":{"resources":[]}}"#), (403, refused)] {
        let script = Script::new([
            Play::With(status, first, "x-dms-extensions", KEYS),
            Play::With(201, sent, "x-dms-extensions", KEYS),
            Play::With(201, sent, "x-dms-extensions", KEYS),
        ]);
        let client = script.client();
        for _ in 0..2 {
            let window = Duration::from_millis(90_500);
            let message = keyed("k").deduplication_window(window);
            client.send_with(&QueueId::from("q1"), &[message], SendOptions::new()).await.unwrap();
        }
        let requests = script.requests();
        assert_eq!(requests.len(), 3, "it is asked once: {requests:?}");
        let body = r#"{"messages":[{"body":"k","deduplication_key":"k","deduplication_window":90500}]}"#;
        assert!(requests[1].ends_with(body), "{}", requests[1]);
    }
}

#[tokio::test]
async fn keys_and_windows_have_limits() {
    let client = TestServer::start().await.client();
    let window = Duration::from_millis(999);
    let long = "x".repeat(513);
    let no_key = Message { deduplication_key: None, ..keyed("k").deduplication_window(Duration::from_secs(5)) };
    for (message, expected) in [
        (keyed(""), "deduplication key is 0 bytes long: 1 to 512 bytes are allowed"),
        (keyed(&long), "deduplication key is 513 bytes long"),
        (keyed("k").deduplication_window(window), "deduplication window is 999ms: 1 s to 7 days are allowed"),
        (no_key, "deduplication window is 5s: a deduplication key is needed"),
    ] {
        let error = client.send(&QueueId::from("q1"), &[message]).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_long_delay_is_refused_by_other_services() {
    let delay = Duration::from_secs(8 * 86_400);
    let message = || Message::text("later").delay(delay);
    let script = Script::new([Play::Answer(200, r#"{"quotas":{"resources":[]}}"#)]);
    let error = script.client().send(&QueueId::from("q1"), &[message()]).await.unwrap_err().to_string();
    assert!(error.contains("does not announce the extension long-delay"), "{error}");
    assert_eq!(script.requests().len(), 1, "the message is not sent");

    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    server.client().send(group.queue_id(), &[message()]).await.unwrap();
    let far = Message::text("too late").delay(Duration::from_secs(367 * 86_400));
    let error = server.client().send(group.queue_id(), &[far]).await.unwrap_err().to_string();
    assert!(error.contains("7 days) are allowed, and 366 days"), "{error}");
}
