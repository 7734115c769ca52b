//! Callers that close their sending side after a request, and callers that are gone: on the wire both look the same.

use std::time::Duration;

use dms_server::ServerConfig;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    PROJECT,
    connections::{Running, consume_path, request, serve},
};
use crate::clock::rest;

/// Enough for whatever is answered at once.
const SOON: Duration = Duration::from_secs(10);

/// A server with a queue, its consume path, and the path of its messages.
async fn stage() -> (Running, String, String) {
    let server = serve(ServerConfig::default()).await;
    let consume = consume_path(&mut server.connect().await).await;
    let send = format!("{}/messages", consume.split("/groups").next().unwrap());
    (server, consume, send)
}

/// Sends a request, closes the sending side, and reads to the end of the connection.
async fn last_request(server: &Running, method: &str, path: &str, body: &str) -> String {
    let mut stream = server.connect().await;
    begin(&mut stream, method, path, body).await;
    stream.shutdown().await.unwrap();
    timeout(SOON, rest(&mut stream)).await.expect("an answer and the end of the connection")
}

async fn begin(stream: &mut TcpStream, method: &str, path: &str, body: &str) {
    let length = body.len();
    let text =
        format!("{method} /v2/{PROJECT}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn send(server: &Running, path: &str, text: &str) {
    let body = format!(r#"{{"messages":[{{"body":"{text}"}}]}}"#);
    let answer = request(&mut server.connect().await, "POST", path, &body).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn handler(answer: &str) -> &str {
    answer.split_once(r#""handler":""#).unwrap().1.split('"').next().unwrap()
}

#[tokio::test]
async fn a_send_a_consume_and_an_acknowledgement_are_answered() {
    let (server, consume, messages) = stage().await;
    let sent = last_request(&server, "POST", &messages, r#"{"messages":[{"body":"one"}]}"#).await;
    assert!(sent.starts_with("HTTP/1.1 201"), "{sent}");
    let consumed = last_request(&server, "GET", &consume, "").await;
    assert!(consumed.starts_with("HTTP/1.1 200") && consumed.contains(r#""body":"one""#), "{consumed}");
    let lines = format!(r#"{{"message":[{{"handler":"{}","status":"success"}}]}}"#, handler(&consumed));
    let path = consume.replace("messages?time_wait=60", "ack");
    let settled = last_request(&server, "POST", &path, &lines).await;
    assert!(settled.starts_with("HTTP/1.1 200") && settled.ends_with(r#"{"success":1,"fail":0}"#), "{settled}");
}

/// The message comes when some bytes of the answer have been sent ahead; the answer is whole all the same.
#[tokio::test]
async fn a_waiting_consume_call_is_answered() {
    let (server, consume, messages) = stage().await;
    let polling = async {
        let begun = Instant::now();
        (last_request(&server, "GET", &consume, "").await, begun.elapsed())
    };
    let sending = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        send(&server, &messages, &"x".repeat(300_000)).await;
    };
    let ((consumed, took), ()) = tokio::join!(polling, sending);
    assert!(consumed.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &consumed[..consumed.len().min(100)]);
    let (head, body) = consumed.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A server that waited for more from such a caller would not answer; one that took it for gone would not either.
#[tokio::test]
async fn requests_in_a_row_are_all_answered() {
    let (server, ..) = stage().await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        begin(&mut stream, "GET", "/queues", "").await;
    }
    stream.shutdown().await.unwrap();
    let answers = timeout(SOON, rest(&mut stream)).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
}

/// Requests that are answered in no time, whenever the end arrives: nothing else wakes the connection after a probe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_requests_are_answered_whenever_the_sending_side_closes() {
    let (server, ..) = stage().await;
    for round in 0..40 {
        let mut stream = server.connect().await;
        if round % 2 == 0 {
            begin(&mut stream, "GET", "/queues", "").await;
        }
        begin(&mut stream, "GET", "/quotas/dms", "").await;
        stream.shutdown().await.unwrap();
        let answers = timeout(SOON, rest(&mut stream)).await.expect("the end of the connection");
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2 - round % 2, "{answers}");
    }
}

#[tokio::test]
async fn http_1_0_is_answered() {
    let (server, ..) = stage().await;
    let mut stream = server.connect().await;
    stream.write_all(format!("GET /v2/{PROJECT}/queues HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = timeout(SOON, rest(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

/// A body that breaks off is no request: it ends at once, and nothing is done.
#[tokio::test]
async fn a_truncated_body_is_refused_at_once() {
    let (server, _, messages) = stage().await;
    let mut stream = server.connect().await;
    let head =
        format!("POST /v2/{PROJECT}{messages} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{{\"mess");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = timeout(SOON, rest(&mut stream)).await.expect("the end of the connection");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// Nothing is leased to a caller that is gone, whether it closes its connection or its process ends: the next one gets the
/// message, as its first attempt.
#[tokio::test]
async fn a_caller_that_is_gone_gets_no_message() {
    let (server, consume, messages) = stage().await;
    for round in 0..5 {
        let mut gone = server.connect().await;
        begin(&mut gone, "GET", &consume, "").await;
        // Its call is waiting.
        server.exchange().await;
        drop(gone);
        server.exchange().await;
        send(&server, &messages, &format!("message {round}")).await;
        let path = consume.replace("time_wait=60", "time_wait=10");
        let consumed = request(&mut server.connect().await, "GET", &path, "").await;
        assert!(consumed.contains(&format!("message {round}")), "{consumed}");
        let deliveries = consumed.lines().find_map(|line| line.strip_prefix("x-dms-deliveries: ")).unwrap();
        assert_eq!(deliveries.split('.').nth(1), Some("1"), "{deliveries}");
    }
}
