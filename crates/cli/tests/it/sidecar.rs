//! The sidecar: delivery to an application or a program, publishers, the admin endpoint, the end.

mod admin;
mod deduplicate;
mod delivery;
mod fragile;
mod outage;
mod outbox;
mod programs;
mod publisher;
mod reload;

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse};
use dms_server::{Server, ServerConfig};
use dms_worker::{
    Client,
    message::Message,
    queue::{ConsumerGroup, NewQueue},
};
use dms_worker_cli::{
    config::{Config, Request, load},
    sidecar::{Controls, Sidecar, SidecarError, SidecarReport},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes longer unless it is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A running sidecar with its embedded server: queue `orders`, group `billing`.
pub(crate) struct Running {
    pub(crate) publishers: Vec<SocketAddr>,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) client: Client,
    controls: Controls,
    /// The configuration in force.
    config: Config,
    stop: CancellationToken,
    ended: JoinHandle<Result<SidecarReport, SidecarError>>,
}

impl Running {
    /// Runs this configuration; `server` is added with any free port and a queue whose messages become dead letters
    /// after `failures`.
    pub(crate) async fn start(failures: u32, yaml: &str) -> Self {
        Self::with(&format!("max_consume_count: {failures}"), yaml).await
    }

    /// The same with a queue that has these settings.
    pub(crate) async fn with(queue: &str, yaml: &str) -> Self {
        let server =
            format!("server:\n  listen: 127.0.0.1:0\n  queues: [{{name: orders, {queue}, groups: [billing]}}]\n");
        Self::of(&(server + yaml)).await
    }

    /// Runs a configuration that has a server.
    pub(crate) async fn of(yaml: &str) -> Self {
        let config = loaded(yaml);
        let sidecar = Sidecar::start(config.clone()).await.unwrap();
        let server = sidecar.server_addr().unwrap();
        let (publishers, admin) = (sidecar.publisher_addrs(), sidecar.admin_addr());
        let client = Client::builder(format!("http://{server}"), "local").build().unwrap();
        let controls = sidecar.controls();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(sidecar.run(stop.clone()));
        Self { publishers, admin, client, controls, config, stop, ended }
    }

    /// Runs this configuration with a server elsewhere, which has the same queue: that others are missing shows only when it runs.
    pub(crate) async fn elsewhere(yaml: &str) -> Self {
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let server = Server::bind(ServerConfig::default().listen(listen)).await.unwrap();
        let endpoint = format!("http://{}", server.local_addr().unwrap());
        tokio::spawn(server.run(std::future::pending()));
        let client = Client::builder(endpoint.as_str(), "local").build().unwrap();
        let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(3)).await.unwrap().id;
        client.create_groups(&queue, &["billing"]).await.unwrap();
        let config = loaded(&format!("dms: {{endpoint: '{endpoint}', project_id: local}}\n{yaml}"));
        let sidecar = Sidecar::start(config.clone()).await.unwrap();
        let (publishers, admin) = (sidecar.publisher_addrs(), sidecar.admin_addr());
        let controls = sidecar.controls();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(sidecar.run(stop.clone()));
        Self { publishers, admin, client, controls, config, stop, ended }
    }

    /// Applies another configuration.
    pub(crate) async fn reload(&mut self, yaml: &str) -> Result<(), Vec<String>> {
        self.controls.apply(&mut self.config, &loaded(yaml)).await
    }

    /// Sends messages to `orders`.
    pub(crate) async fn send(&self, messages: &[Message]) {
        let queue = self.client.find_queue("orders").await.unwrap();
        for outcome in self.client.send(&queue.id, messages).await.unwrap() {
            outcome.unwrap();
        }
    }

    /// The group's counters.
    pub(crate) async fn group(&self) -> ConsumerGroup {
        let queue = self.client.find_queue("orders").await.unwrap();
        self.client.find_group(&queue.id, "billing").await.unwrap()
    }

    /// Waits until the group's counters are as wanted.
    #[track_caller]
    pub(crate) fn until(&self, wanted: impl Fn(&ConsumerGroup) -> bool) -> impl Future<Output = ConsumerGroup> {
        let place = std::panic::Location::caller();
        async move {
            let mut last = None;
            let wait = async {
                loop {
                    let group = self.group().await;
                    if wanted(&group) {
                        return group;
                    }
                    last = Some(group);
                    tokio::task::yield_now().await;
                }
            };
            match timeout(TEST_TIMEOUT, wait).await {
                Ok(group) => group,
                Err(_) => panic!("{place}: it did not come to that: {last:?}"),
            }
        }
    }

    /// Waits until this count of the first worker's `/status` is at least `least`.
    pub(crate) async fn until_handled(&self, count: &str, least: u64) {
        let url = format!("http://{}/status", self.admin.unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let wait = async {
            loop {
                let status: Value =
                    serde_json::from_slice(&http.get(&url).send().await.unwrap().bytes().await.unwrap()).unwrap();
                if status["workers"][0][count].as_u64() >= Some(least) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, wait).await.expect("it does not come to that");
    }

    /// Begins the end without waiting for it.
    pub(crate) fn begin_to_stop(&self) {
        self.stop.cancel();
    }

    /// Ends the sidecar.
    pub(crate) async fn stop(self) -> SidecarReport {
        self.stop.cancel();
        timeout(TEST_TIMEOUT, self.ended).await.expect("it does not end").unwrap().unwrap()
    }
}

/// A configuration that is valid.
#[track_caller]
fn loaded(yaml: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, yaml).unwrap();
    load(&Request::new().file(file)).unwrap_or_else(|error| panic!("{error}")).config
}

/// A request as the application got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An application that answers with the status in a message's body, as in `{"status": 503, "retry_after": "1"}`; else 200.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Got>,
    serving: JoinHandle<()>,
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1:0".parse().unwrap()).await
    }

    /// An application at this address.
    pub(crate) async fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = mpsc::unbounded_channel();
        let router = Router::new().fallback(answer).with_state(seen);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, requests, serving }
    }

    /// An address where nothing listens now.
    pub(crate) async fn nowhere() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Got {
        timeout(TEST_TIMEOUT, self.requests.recv()).await.expect("no request comes").unwrap()
    }

    /// Requests that came and were not looked at.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len()
    }

    /// Ends the application: its address refuses connections from now on.
    pub(crate) async fn end(self) {
        self.serving.abort();
        // It was told to end: that is no error.
        let _ = self.serving.await;
    }
}

async fn answer(
    State(seen): State<mpsc::UnboundedSender<Got>>,
    method: Method,
    uri: http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let status = body["status"].as_u64().and_then(|status| StatusCode::from_u16(u16::try_from(status).unwrap()).ok());
    let mut answer = HeaderMap::new();
    if let Some(seconds) = body["retry_after"].as_str() {
        answer.insert(header::RETRY_AFTER, HeaderValue::from_str(seconds).unwrap());
    }
    if status.is_some_and(|status| status.is_redirection()) {
        answer.insert(header::LOCATION, HeaderValue::from_static("/elsewhere"));
    }
    if method == Method::POST {
        // Nobody listens once the test is over.
        let _ = seen.send(Got { path: uri.path().to_owned(), headers, body });
    }
    (status.unwrap_or(StatusCode::OK), answer, "said the application")
}

/// One worker with this handler, and what else it is given.
pub(crate) fn worker(handler: &str, extra: &str) -> String {
    format!("workers:\n  - queue: orders\n    group: billing\n    poll_wait: 1s\n    handler: {handler}\n    {extra}\n")
}
