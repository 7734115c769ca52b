//! Injected faults have exactly the documented effects.

use std::time::Duration;

use axum::body::Body;
use dms_server::{
    Operation, ServerConfig,
    faults::{Fault, FaultRule},
};
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tower::ServiceExt;

use super::{Api, PROJECT};

/// Sends one message and tells whether an answer came.
async fn send_is_answered(api: &Api, queue: &str) -> bool {
    let uri = format!("/v2/{PROJECT}{queue}/messages");
    let request = Request::post(uri).body(Body::from(r#"{"messages":[{"body":1}]}"#)).unwrap();
    api.server.service().oneshot(request).await.unwrap().into_body().collect().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn injected_refusals_change_nothing() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let path = format!("{queue}/messages");
    for (fault, status, code) in [(Fault::ServerError, 500, "DMS.10250002"), (Fault::Throttled, 404, "DMS.10240407")] {
        api.server.faults().next(Operation::Send, fault);
        api.post(&path, r#"{"messages":[{"body":1}]}"#).await.refused(status, code);
    }
    api.server.faults().next(Operation::Send, Fault::Reset);
    assert!(!send_is_answered(&api, &queue).await);
    assert_eq!(api.consume(&group, "").await, json!([]));
    assert!(send_is_answered(&api, &queue).await, "a scripted fault happens once");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_is_lost_was_processed() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    api.server.faults().next(Operation::Send, Fault::LostAnswer);
    assert!(!send_is_answered(&api, &queue).await);
    let consumed = api.consume(&group, "").await;
    assert_eq!(consumed.as_array().unwrap().len(), 1);
    api.server.faults().next(Operation::Ack, Fault::LostAnswer);
    let uri = format!("/v2/{PROJECT}{group}/ack");
    let body = json!({ "message": [{ "handler": consumed[0]["handler"], "status": "success" }] }).to_string();
    let answer = api.server.service().oneshot(Request::post(uri).body(Body::from(body)).unwrap()).await.unwrap();
    assert!(answer.into_body().collect().await.is_err());
    api.ack(&group, &consumed, "success").await.refused(400, "DMS.10542209");
}

#[tokio::test(start_paused = true)]
async fn duplicates_partial_acks_and_expired_leases() {
    let api = Api::start().await;
    let (queue, group) = api.queue_and_group("q").await;
    let faults = api.server.faults();
    faults.next(Operation::Send, Fault::Duplicate);
    api.send(&queue, r#"{"body":1}"#).await;
    let consumed = api.consume(&group, "ack_wait=15").await;
    assert_eq!(consumed.as_array().unwrap().len(), 2);
    faults.next(Operation::Ack, Fault::PartialAck);
    assert_eq!(api.ack(&group, &consumed, "success").await.expect(200), json!({ "success": 1, "fail": 1 }));
    let consumed = api.consume(&group, "ack_wait=15").await;
    faults.next(Operation::Ack, Fault::ExpiredLease);
    api.ack(&group, &consumed, "success").await.refused(400, "DMS.10542209");
    let again = api.get(&format!("{group}/messages?time_wait=30")).await.expect(200);
    assert_eq!(again.as_array().unwrap().len(), 1, "it is redelivered when the lease has ended");
}

#[tokio::test(start_paused = true)]
async fn fault_rules_apply_until_they_are_cleared() {
    let plan = "seed=3,latency=2s@send:1,error@quotas:1".parse().unwrap();
    let api = Api::with(ServerConfig::default().faults(plan)).await;
    let (queue, _) = api.queue_and_group("q").await;
    let begun = Instant::now();
    api.send(&queue, r#"{"body":1}"#).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    for _ in 0..3 {
        api.get("/quotas").await.refused(500, "DMS.10250002");
    }
    api.server.faults().clear();
    api.get("/quotas").await.expect(200);
    api.server.faults().add(FaultRule::new(Fault::Throttled, 1.0).on(Operation::ListQueues));
    api.get("/queues").await.refused(404, "DMS.10240407");
}

/// On a socket a lost answer is a connection that ends without a byte.
#[tokio::test]
async fn a_connection_ends_without_a_byte() {
    let any_port = Some(([127, 0, 0, 1], 0).into());
    let api = Api::with(ServerConfig::default().listen(any_port)).await;
    api.server.faults().next(Operation::ListQueues, Fault::LostAnswer);
    let address = api.server.local_addr().unwrap();
    let running = tokio::spawn(std::sync::Arc::try_unwrap(api.server).unwrap().run(std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /v2/{PROJECT}/queues HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    running.abort();
}
