//! The server through its router, without sockets: requests as text, answers as JSON.

#![allow(clippy::unwrap_used)]

mod admin;
mod admin_guard;
mod auth;
mod broken;
#[cfg(feature = "postgres")]
mod cluster;
mod connections;
#[cfg(feature = "dashboard")]
mod dashboard;
mod documents;
mod errors;
mod extensions;
mod faults;
mod half_closed;
mod hostile;
mod identity;
mod intake;
mod message;
mod mqs;
mod overview;
mod queue_admin;
mod rights;
mod storage;
mod strangers;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use dms_server::{ApiService, Project, Server, ServerConfig, clock::Clock};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

/// The project of the reference's examples.
pub(crate) const PROJECT: &str = "b78a90ae2a134b4b8b2ba30acab4e23a";

/// A server in memory, called without sockets.
pub(crate) struct Api {
    pub(crate) server: Arc<Server>,
    service: ApiService,
    prefix: String,
}

/// A response of the server, read as a whole.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl ApiResponse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks the status and gives the body.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks that this is the documented error: its status, its code, and a body in the service's shape.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!((self.status.as_u16(), json["error_code"].as_str().unwrap_or_default()), (status, code), "{self:?}");
        assert_eq!(json["request_id"].as_str(), self.headers["x-request-id"].to_str().ok(), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json");
        json["error_msg"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// A server without authentication, on V2.
    pub(crate) async fn start() -> Self {
        Self::with(ServerConfig::default().clock(vector_clock())).await
    }

    pub(crate) async fn with(config: ServerConfig) -> Self {
        Self::of(Server::bind(config).await.unwrap())
    }

    pub(crate) fn of(server: Server) -> Self {
        Self { service: server.service(), server: Arc::new(server), prefix: format!("/v2/{PROJECT}") }
    }

    /// The same server by another prefix than `/v2/{project}`.
    pub(crate) fn on(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> ApiResponse {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        ApiResponse { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> ApiResponse {
        let uri = format!("{}{path}", self.prefix);
        self.raw(Request::builder().method(method).uri(uri).body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> ApiResponse {
        self.call("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> ApiResponse {
        self.call("POST", path, body.to_owned()).await
    }

    /// Creates a queue and gives its path.
    pub(crate) async fn queue(&self, body: &str) -> String {
        let created = self.post("/queues", body).await.expect(201);
        format!("/queues/{}", created["id"].as_str().unwrap())
    }

    /// Creates a queue of that name without dead letters and a group, and gives both paths.
    pub(crate) async fn queue_and_group(&self, name: &str) -> (String, String) {
        let queue = self.queue(&format!(r#"{{"name":"{name}"}}"#)).await;
        let group = self.group(&queue, "g").await;
        (queue, group)
    }

    pub(crate) async fn group(&self, queue: &str, name: &str) -> String {
        let body = format!(r#"{{"groups":[{{"name":"{name}"}}]}}"#);
        let created = self.post(&format!("{queue}/groups"), &body).await.expect(201);
        format!("{queue}/groups/{}", created["groups"][0]["id"].as_str().unwrap())
    }

    /// Sends one message.
    pub(crate) async fn send(&self, queue: &str, message: &str) {
        self.post(&format!("{queue}/messages"), &format!(r#"{{"messages":[{message}]}}"#)).await.expect(201);
    }

    pub(crate) async fn consume(&self, group: &str, query: &str) -> Value {
        self.get(&format!("{group}/messages?time_wait=1&{query}")).await.expect(200)
    }

    /// Acknowledges all of a consume answer with one status.
    pub(crate) async fn ack(&self, group: &str, consumed: &Value, status: &str) -> ApiResponse {
        let line = |message: &Value| serde_json::json!({ "handler": message["handler"], "status": status });
        let lines: Vec<Value> = consumed.as_array().unwrap().iter().map(line).collect();
        self.post(&format!("{group}/ack"), &serde_json::json!({ "message": lines }).to_string()).await
    }
}

/// The settings of a server with one key and one user for [`PROJECT`], at the time of the signing vectors.
pub(crate) fn guarded() -> ServerConfig {
    ServerConfig::default()
        .projects(vec![
            Project::new(PROJECT)
                .access_key("CONFORMANCEAK0000001", "ConformanceSecretKey0123456789abcdefghij")
                .user("u", "pass", "d"),
        ])
        .clock(vector_clock())
}

/// A clock that shows the X-Sdk-Date of the signing vectors, 2026-11-22T20:33:00Z.
pub(crate) fn vector_clock() -> Clock {
    Clock::following_tokio(UNIX_EPOCH + Duration::from_secs(1_795_379_580))
}

#[test]
fn the_clock_of_the_signature_vectors_is_right() {
    let shown: SystemTime = UNIX_EPOCH + Duration::from_secs(1_795_379_580);
    assert_eq!(jiff::Timestamp::try_from(shown).unwrap().to_string(), "2026-11-22T20:33:00Z");
}
