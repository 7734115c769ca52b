//! [`Canned`]: a transport with ready-made answers.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::transport::{Transport, TransportError};
use http::{HeaderValue, Method, Request, Response, StatusCode};

pub(crate) const PROJECT: &str = "local";
pub(crate) const QUEUE: &str = "5c1b6d49-6d5b-4c1a-9a0e-3f5a2f1d0001";
pub(crate) const GROUP: &str = "g-5c1b6d49-6d5b-4c1a-9a0e-3f5a2f1d0002";
/// The messages of a batch.
pub(crate) const BATCH: usize = 10;
/// The bytes of a body.
pub(crate) const SIZE: usize = 1024;

/// A body of [`SIZE`] bytes of JSON.
pub(crate) fn body() -> String {
    format!("\"{}\"", "x".repeat(SIZE - 2))
}

#[derive(Clone, Debug)]
pub(crate) struct Canned {
    queue: Bytes,
    queues: Bytes,
    groups: Bytes,
    messages: Bytes,
    sent: Bytes,
    acked: Bytes,
}

impl Canned {
    pub(crate) fn new() -> Self {
        let queue = format!(
            r#"{{"id":"{QUEUE}","name":"bench","description":"","queue_mode":"NORMAL","reservation":4320,"created":1495701557000,"max_msg_size_byte":524288,"produced_messages":1,"redrive_policy":"disable","group_count":1}}"#
        );
        let queues = format!(r#"{{"queues":[{queue}],"total":1}}"#);
        let groups = format!(
            r#"{{"queue_id":"{QUEUE}","queue_name":"bench","redrive_policy":"disable","groups":[{{"name":"bench","id":"{GROUP}","consumed_messages":0,"available_messages":8,"produced_messages":10}}]}}"#
        );
        let body = body();
        let message = |at| {
            format!(
                r#"{{"message":{{"body":{body},"attributes":{{}}}},"handler":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{at:02}"}}"#
            )
        };
        let messages = format!("[{}]", (0..BATCH).map(message).collect::<Vec<_>>().join(","));
        let line = r#"{"error":null,"error_code":null,"state":0}"#;
        let sent = format!("{{\"messages\":[{}]}}", [line; BATCH].join(","));
        let acked = format!("{{\"success\":{BATCH},\"fail\":0}}");
        Self {
            queue: queue.into(),
            queues: queues.into(),
            groups: groups.into(),
            messages: messages.into(),
            sent: sent.into(),
            acked: acked.into(),
        }
    }
}

#[async_trait]
impl Transport for Canned {
    async fn send(&self, request: Request<Bytes>, _: Duration) -> Result<Response<Bytes>, TransportError> {
        let path = request.uri().path();
        let last = path.rsplit('/').next().unwrap_or_default();
        let (status, body) = match (request.method(), last) {
            (&Method::GET, "messages") => (StatusCode::OK, &self.messages),
            (&Method::POST, "messages") => (StatusCode::CREATED, &self.sent),
            (_, "ack") => (StatusCode::OK, &self.acked),
            (_, "queues") => (StatusCode::OK, &self.queues),
            (_, "groups") => (StatusCode::OK, &self.groups),
            _ => (StatusCode::OK, &self.queue),
        };
        let mut answer = Response::new(body.clone());
        *answer.status_mut() = status;
        if last == "messages" && request.method() == Method::GET {
            let places = HeaderValue::from_static("1.1,2.1,3.1,4.1,5.1,6.1,7.1,8.1,9.1,10.1");
            answer.headers_mut().insert("x-dms-deliveries", places);
        }
        Ok(answer)
    }
}
