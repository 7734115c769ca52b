//! The requests that an application receives, and the meaning of its answers (the table of the README's sidecar chapter).

use dms_worker::{client::SendOptions, message::Message};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{App, Running, worker};

fn message(body: &Value) -> Message {
    Message::json(body).unwrap()
}

#[tokio::test]
async fn a_message_is_one_post_with_its_properties_in_headers() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/orders', headers: {{X-From: dms}}, timeout: 5s}}}}", app.address);
    let sidecar = Running::start(3, &worker(&handler, "")).await;
    let sent = message(&json!({"id": 1})).tag("red").tag("big").attribute("n", 1).attribute("名", "值");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    sidecar.send(&[sent.attribute("traceparent", trace), Message::text("plain")]).await;

    let got = app.next().await;
    assert_eq!((got.path.as_str(), &got.body), ("/orders", &json!({"id": 1})));
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!((got.header("dms-queue"), got.header("dms-group")), (Some("orders"), Some("billing")));
    assert_eq!((got.header("dms-tags"), got.header("x-from")), (Some("red,big"), Some("dms")));
    assert_eq!(got.header("traceparent"), Some(trace));
    let attributes: Value = serde_json::from_str(got.header("dms-attributes").unwrap()).unwrap();
    assert_eq!((&attributes["n"], &attributes["名"]), (&json!(1), &json!("值")));
    let left: u64 = got.header("dms-deadline-ms").unwrap().parse().unwrap();
    assert!((4_000..=5_000).contains(&left), "the timeout is nearer than the lease: {left}");
    assert_eq!(app.next().await.body, json!("plain"), "a text is a JSON string");
    sidecar.until(|group| group.consumed_messages == 2).await;
    assert!(sidecar.stop().await.drained);
}

/// What the send returned is in the header, at each delivery.
#[tokio::test]
async fn an_application_sees_the_id_of_the_message() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    let sidecar = Running::start(3, &worker(&handler, "")).await;
    let queue = sidecar.client.find_queue("orders").await.unwrap().id;
    let options = SendOptions::new().return_ids(true);
    let sent = sidecar.client.send_with(&queue, &[message(&json!({"status": 500}))], options).await.unwrap();
    let id = sent[0].as_ref().unwrap().id.as_ref().unwrap().as_str();
    for _ in 0..3 {
        assert_eq!(app.next().await.header("dms-message-id"), Some(id));
    }
    sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn answers_decide_what_becomes_of_a_message() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    let sidecar = Running::start(2, &worker(&handler, "on_reject: discard")).await;
    for (status, times) in
        [(200, 1), (204, 1), (400, 1), (404, 1), (422, 1), (408, 2), (425, 2), (429, 2), (500, 2), (503, 2), (302, 2)]
    {
        sidecar.send(&[message(&json!({ "status": status }))]).await;
        for _ in 0..times {
            let got = app.next().await;
            assert_eq!((got.path.as_str(), &got.body["status"]), ("/", &json!(status)), "a redirect is not followed");
        }
        sidecar.until(|group| group.available_messages == 0).await;
    }
    let group = sidecar.until(|group| group.produced_dead_letters == Some(6)).await;
    assert_eq!(group.produced_messages, 11);
    assert_eq!(app.waiting(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn retry_after_delays_the_message_and_costs_no_attempt() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/'}}}}", app.address);
    let sidecar = Running::start(1, &worker(&handler, "")).await;
    sidecar.send(&[message(&json!({"status": 503, "retry_after": "1"}))]).await;
    app.next().await;
    let first = std::time::Instant::now();
    app.next().await;
    assert!(first.elapsed() >= std::time::Duration::from_millis(900), "{:?}", first.elapsed());
    assert_eq!(sidecar.group().await.produced_dead_letters, Some(0), "one failure would have been enough");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_request_is_signed_with_time_and_body() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/', signature_key: k3y}}}}", app.address);
    let sidecar = Running::start(3, &worker(&handler, "")).await;
    sidecar.send(&[Message::text("x")]).await;
    let got = app.next().await;
    let (time, signature) = got.header("dms-signature").unwrap().split_once(',').unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"k3y").unwrap();
    mac.update(format!("{}.\"x\"", time.strip_prefix("t=").unwrap()).as_bytes());
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signature.strip_prefix("v1="), Some(expected.as_str()));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_message_can_be_a_cloud_event() {
    let mut app = App::start().await;
    let handler = format!("{{http: {{url: 'http://{}/', format: cloudevents}}}}", app.address);
    let sidecar = Running::start(3, &worker(&handler, "")).await;
    let sent =
        message(&json!({"n": 1})).attribute("ce-type", "order created").attribute("tenant", 7).attribute("Not-One", 1);
    sidecar.send(&[sent]).await;
    let got = app.next().await;
    assert_eq!(got.body, json!({"n": 1}));
    assert_eq!((got.header("ce-specversion"), got.header("ce-source")), (Some("1.0"), Some("/dms/local/orders")));
    assert_eq!((got.header("ce-type"), got.header("ce-tenant")), (Some("order%20created"), Some("7")));
    assert_eq!((got.header("ce-id"), got.header("ce-id").map(str::len)), (got.header("dms-message-id"), Some(24)));
    assert!(got.header("ce-datacontenttype").is_none() && got.header("ce-not-one").is_none());
    sidecar.stop().await;
}

#[tokio::test]
async fn an_application_that_is_too_slow_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handler = format!("{{http: {{url: 'http://{}/', timeout: 100ms}}}}", listener.local_addr().unwrap());
    let sidecar = Running::start(1, &worker(&handler, "")).await;
    // Connections are accepted by the kernel, and nobody ever answers.
    sidecar.send(&[Message::text("x")]).await;
    sidecar.until(|group| group.produced_dead_letters == Some(1)).await;
    let report = sidecar.stop().await.workers[0].report;
    assert_eq!((report.failed, report.timed_out), (0, 1));
    drop(listener);
}

#[tokio::test]
async fn a_unix_socket_is_an_address_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let router = axum::Router::new().fallback(async || "ok");
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let handler = format!("{{http: {{url: 'http://app/orders', unix_socket: '{}'}}}}", path.display());
    let sidecar = Running::start(1, &worker(&handler, "")).await;
    sidecar.send(&[Message::text("x")]).await;
    sidecar.until(|group| group.consumed_messages == 1).await;
    sidecar.stop().await;
    serving.abort();
}
