//! The publisher endpoint: one result per message, when the service has them.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{App, Running, worker};

struct Publisher {
    app: App,
    sidecar: Running,
    url: String,
    http: reqwest::Client,
}

impl Publisher {
    async fn start() -> Self {
        let app = App::start().await;
        let yaml = worker(&format!("{{http: {{url: 'http://{}/'}}}}", app.address), "")
            + "publishers:\n  - {listen: '127.0.0.1:0', queue: orders}\nadmin: {listen: '127.0.0.1:0'}\n";
        let sidecar = Running::start(3, &yaml).await;
        let url = format!("http://{}/", sidecar.publishers[0]);
        Self { app, sidecar, url, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn post(&self, headers: &[(&'static str, &'static str)], body: impl Into<reqwest::Body>) -> (u16, Value) {
        let mut request = self.http.post(&self.url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }
}

#[tokio::test]
async fn a_message_and_a_list_are_answered_when_they_are_sent() {
    let mut publisher = Publisher::start().await;
    let (status, answer) = publisher.post(&[], r#"{"body": {"n": 1}, "attributes": {"a": 1}, "tags": ["red"]}"#).await;
    assert_eq!((status, &answer["state"]), (200, &json!("sent")), "{answer}");
    assert!(answer["id"].is_string());
    let got = publisher.app.next().await;
    assert_eq!((&got.body, got.header("dms-tags")), (&json!({"n": 1}), Some("red")));

    let (status, answer) = publisher.post(&[], r#"[{"body": 2}, {"x": 1}, {"body": 3, "tags": ["a b"]}]"#).await;
    let states: Vec<_> = answer["messages"].as_array().unwrap().iter().map(|result| result["state"].clone()).collect();
    assert_eq!((status, states), (207, vec![json!("sent"), json!("refused"), json!("refused")]), "{answer}");
    assert_eq!(answer["messages"][1]["error"], "messages[1]: has no `body`: write {\"body\": …}");
    assert_eq!(publisher.app.next().await.body, json!(2));

    let metrics = format!("http://{}/metrics", publisher.sidecar.admin.unwrap());
    let metrics = publisher.http.get(metrics).send().await.unwrap().text().await.unwrap();
    let sent = "dms_producer_messages_total{queue=\"orders\",outcome=\"sent\"} 2\n";
    assert!(metrics.contains(sent) && metrics.contains("dms_worker_messages_received_total"), "{metrics}");
    publisher.sidecar.stop().await;
}

/// Failures that differ in numbers are one group, each redelivery has its reason with the setting that changes it, and the page of
/// publishers counts what they sent.
#[tokio::test]
async fn the_dashboard_explains_failures_and_redeliveries_and_counts_published_messages() {
    let publisher = Publisher::start().await;
    for status in [598, 599] {
        let (answered, answer) = publisher.post(&[], format!(r#"{{"body": {{"status": {status}}}}}"#)).await;
        assert_eq!(answered, 200, "{answer}");
    }
    publisher.sidecar.until_handled("redelivered", 2).await;
    let page = async |path: &str| {
        let url = format!("http://{}/ui{path}", publisher.sidecar.admin.unwrap());
        let request = publisher.http.get(url).header("Sec-Fetch-Site", "same-origin");
        request.send().await.unwrap().text().await.unwrap()
    };
    let shown = page("/workers/orders%2Fbilling?window=10m&range=3h").await;
    let section = |from: &str, to: &str| {
        shown.split(&format!("{from}</h2>")).nth(1).unwrap().split(to).next().unwrap().to_owned()
    };
    let failures = section("Failures by error", "Last errors");
    assert_eq!(failures.matches("<tr>").count(), 2, "a head, and one group for both: {failures}");
    assert!(failures.contains("#") && failures.contains("place ") | failures.contains("Place "), "{failures}");
    let again = section("Why messages were redelivered", "Failures by error");
    for expected in [
        "<code>failed</code>",
        "its handler failed before",
        "on_failure",
        "The last cases",
        "?range=3h&amp;window=1h#again",
    ] {
        assert!(again.contains(expected), "{expected}: {again}");
    }
    let publishers = page("/publishers").await;
    let address = publisher.sidecar.publishers[0].to_string();
    assert!(publishers.contains(&address) && publishers.contains("data-label=\"sent\">2</td>"), "{publishers}");
    assert!(publishers.contains("data-label=\"Queue\"><code>orders</code>"), "by its name: {publishers}");
    assert!(page("/publishers?lang=zh").await.contains("发布端点"));
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn the_sender_is_told_of_a_message_that_was_there_already() {
    let publisher = Publisher::start().await;
    let keyed = || publisher.post(&[("dms-deduplication-key", "nightly")], r#"{"body": 1}"#);
    let (first, again) = (keyed().await, keyed().await);
    assert_eq!((first.0, &first.1["state"], &first.1["duplicate"]), (200, &json!("sent"), &Value::Null));
    assert_eq!(again, (200, json!({"state": "sent", "id": first.1["id"], "duplicate": true})));
    let metrics = format!("http://{}/metrics", publisher.sidecar.admin.unwrap());
    let metrics = publisher.http.get(metrics).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("dms_producer_duplicate_messages_total{queue=\"orders\"} 1\n"), "{metrics}");
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn the_trace_of_the_request_is_the_messages_unless_they_have_their_own() {
    let mut publisher = Publisher::start().await;
    let (trace, own) = (
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000001-0000000000000002-00",
    );
    let messages = format!(r#"[{{"body": 1}}, {{"body": 2, "attributes": {{"traceparent": "{own}"}}}}]"#);
    let (status, answer) = publisher.post(&[("traceparent", trace), ("tracestate", "rojo=1")], messages).await;
    assert_eq!(status, 200, "{answer}");
    for _ in 0..2 {
        let got = publisher.app.next().await;
        let expected = if got.body == json!(1) { (Some(trace), Some("rojo=1")) } else { (Some(own), None) };
        assert_eq!((got.header("traceparent"), got.header("tracestate")), expected);
    }
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn messages_beyond_a_limit_are_refused_with_the_limit() {
    let publisher = Publisher::start().await;
    let (status, answer) = publisher.post(&[], "not json").await;
    assert_eq!((status, &answer["state"]), (400, &json!("refused")), "{answer}");
    assert_eq!(publisher.post(&[], "[]").await.0, 400);
    let large = format!("{{\"body\": \"{}\"}}", "x".repeat(600_000));
    let (status, answer) = publisher.post(&[], large).await;
    assert_eq!(status, 413);
    assert!(answer["error"].as_str().unwrap().contains("at most 524288 bytes are allowed"), "{answer}");
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn a_request_with_the_same_key_is_sent_once() {
    let publisher = Publisher::start().await;
    let key = [("idempotency-key", "abc")];
    let (_, first) = publisher.post(&key, r#"{"body": 1}"#).await;
    let (_, second) = publisher.post(&key, r#"{"body": 1}"#).await;
    assert_eq!(first, second);
    let (_, other) = publisher.post(&[("idempotency-key", "def")], r#"{"body": 1}"#).await;
    assert_ne!(first, other);
    assert_eq!(publisher.sidecar.group().await.produced_messages, 2);
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn a_cloud_event_is_a_message() {
    let mut publisher = Publisher::start().await;
    let event = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("content-type", "application/json"),
    ];
    assert_eq!(publisher.post(&event, r#"{"n": 1}"#).await.0, 200);
    let got = publisher.app.next().await;
    let attributes: Value = serde_json::from_str(got.header("dms-attributes").unwrap()).unwrap();
    assert_eq!((&got.body, &attributes["ce-id"]), (&json!({"n": 1}), &json!("7")));
    publisher.sidecar.stop().await;
}

/// Bodies that are announced and do not come reserve nothing: eight of them took all the room there was.
#[tokio::test]
async fn announced_bodies_that_never_arrive_block_no_sender() {
    let publisher = Publisher::start().await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut stream = tokio::net::TcpStream::connect(publisher.sidecar.publishers[0]).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8388608\r\n\r\n[").await.unwrap();
        held.push(stream);
    }
    let (status, answer) = publisher.post(&[], r#"{"body": 1}"#).await;
    assert_eq!(status, 200, "{answer}");
    let many = format!("[{}{{\"body\": 2}}]", "{\"body\": 1}, ".repeat(9_999));
    let (status, answer) = publisher.post(&[], many.replace("1}", &format!("\"{}\"}}", "x".repeat(100)))).await;
    assert!(status == 200 || status == 207, "{answer}");
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn a_list_that_is_too_long_is_refused_with_its_length() {
    let publisher = Publisher::start().await;
    let (status, answer) = publisher.post(&[], format!("[{}1]", "1,".repeat(4_000_000))).await;
    assert_eq!(
        (status, answer["error"].as_str().unwrap()),
        (400, "the list has 4000001 messages: at most 10000 are allowed")
    );
    publisher.sidecar.stop().await;
}

#[tokio::test]
async fn one_port_serves_several_queues_and_other_paths_are_errors_in_json() {
    let mut publisher = Publisher::start().await;
    let send = async |method: reqwest::Method, path: &str| {
        let url = publisher.url.clone() + path;
        let answer = publisher.http.request(method, url).body(r#"{"body": 1}"#).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let (status, answer) = send(reqwest::Method::POST, "orders").await;
    assert_eq!((status, &answer["state"]), (200, &json!("sent")), "{answer}");
    let (status, answer) = send(reqwest::Method::POST, "elsewhere").await;
    assert_eq!((status, &answer["state"]), (404, &json!("refused")), "{answer}");
    assert_eq!(answer["error"], "this publisher has no queue at `/elsewhere`: POST to / or /orders");
    assert_eq!(send(reqwest::Method::POST, "orders/more").await.0, 404);
    let (status, answer) = send(reqwest::Method::GET, "").await;
    assert_eq!((status, &answer["error"]), (405, &json!("messages are sent with POST")));
    assert_eq!(publisher.app.next().await.body, json!(1));
    publisher.sidecar.stop().await;
}
