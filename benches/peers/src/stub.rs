//! A server of the same API that keeps nothing: every answer is ready-made. No server can be faster on this wire.

use std::net::SocketAddr;

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use tokio::net::TcpListener;

use crate::{Error, dms::GROUP};

const QUEUE_ID: &str = "5c1b6d49-6d5b-4c1a-9a0e-3f5a2f1d0001";
const GROUP_ID: &str = "g-5c1b6d49-6d5b-4c1a-9a0e-3f5a2f1d0002";
/// What the queue is called.
const QUEUE: &str = "stub";
const BATCH: usize = 10;
const SIZE: usize = 1024;

pub async fn serve(listen: SocketAddr) -> Result<(), Error> {
    let json = |text: String| {
        let text = Bytes::from(text);
        move || std::future::ready(([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response())
    };
    let queue = format!(
        r#"{{"id":"{QUEUE_ID}","name":"{QUEUE}","description":"","queue_mode":"NORMAL","reservation":4320,"created":1495701557000,"max_msg_size_byte":524288,"produced_messages":1,"redrive_policy":"disable","group_count":1}}"#
    );
    let queues = format!(r#"{{"queues":[{queue}],"total":1}}"#);
    let groups = format!(
        r#"{{"queue_id":"{QUEUE_ID}","queue_name":"{QUEUE}","redrive_policy":"disable","groups":[{{"name":"{GROUP}","id":"{GROUP_ID}","consumed_messages":0,"available_messages":8,"produced_messages":10}}]}}"#
    );
    let body = "x".repeat(SIZE - 2);
    let message = |at| {
        format!(
            r#"{{"message":{{"body":"{body}","attributes":{{}}}},"handler":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{at:02}"}}"#
        )
    };
    let messages = format!("[{}]", (0..BATCH).map(message).collect::<Vec<_>>().join(","));
    let sent = format!("{{\"messages\":[{}]}}", vec![r#"{"error":null,"error_code":null,"state":0}"#; BATCH].join(","));
    let acked = format!(r#"{{"success":{BATCH},"fail":0}}"#);
    let (send, ack) = (json(sent), json(acked));
    let router = Router::new()
        .route("/v2/local/queues", get(json(queues)))
        .route("/v2/local/queues/{queue}", get(json(queue)))
        .route("/v2/local/queues/{queue}/groups", get(json(groups)))
        .route(
            "/v2/local/queues/{queue}/messages",
            post(async move |_: Bytes| (StatusCode::CREATED, send().await).into_response()),
        )
        // What the sidecar calls.
        .route("/app", post(async |_: Bytes| StatusCode::NO_CONTENT))
        .route("/v2/local/queues/{queue}/groups/{group}/messages", get(json(messages)))
        .route("/v2/local/queues/{queue}/groups/{group}/ack", post(async move |_: Bytes| ack().await));
    Ok(axum::serve(TcpListener::bind(listen).await?, router).await?)
}
