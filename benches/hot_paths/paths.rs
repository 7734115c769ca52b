//! The measured paths. Each is set up once and then run many times. One run is a batch of ten messages of 1 KiB, for
//! paths with messages.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body as HttpBody;
use bytes::Bytes;
use dms_protocol::auth::{
    RequestParts,
    signer::{Authorization, DATE_HEADER},
};
use dms_server::{
    Server, ServerConfig,
    broker::{
        self, Ack, Broker, GroupPath, LeaseRequest, NewMessage, Stream,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
};
use dms_worker::{
    Client,
    client::ConsumeOptions,
    message::{AckHandle, AckStatus, Body, Message},
    producer::Producer,
    queue::{NewQueue, ProjectId, QueueId, SourcePath, TagFilter},
    transport::InProcess,
    worker::{AckResult, Delivery, Event, Observer, Origin, Worker, handler_fn},
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::{runtime::Runtime, sync::Notify};
use tower::ServiceExt;

use crate::{
    canned::{BATCH, Canned, GROUP, PROJECT, QUEUE, SIZE, body},
    sockets,
};

/// Runs a path the given number of times.
pub(crate) type Run = Box<dyn FnMut(u64)>;

/// The name of a path, and the function that sets it up.
pub(crate) type Path = (&'static str, fn() -> Run);

/// All paths.
pub(crate) const PATHS: &[Path] = &[
    ("client_send", || send(false)),
    ("client_send_signed", || send(true)),
    ("client_consume", consume),
    ("client_acknowledge", acknowledge),
    ("signer_verify", verify),
    ("producer_batch", producer),
    ("worker_batch", worker),
    ("broker_memory", || broker(false)),
    ("broker_disk", || broker(true)),
    ("server_cycle", server_cycle),
    ("server_send", server_send),
    ("http_cycle", sockets::http_cycle),
    ("https_cycle", sockets::https_cycle),
];

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn client(signed: bool) -> Client {
    let builder = Client::builder("http://127.0.0.1:9400", PROJECT).transport(Arc::new(Canned::new()));
    let builder = if signed { builder.access_key("EXAMPLEKEY", "a secret key".to_owned()) } else { builder };
    builder.build().expect("a client")
}

fn messages() -> Vec<Message> {
    vec![Message::new(Body::raw(body()).expect("JSON")); BATCH]
}

/// Encodes a send, signs it, reads the answer.
fn send(signed: bool) -> Run {
    let (runtime, client, queue, messages) = (runtime(), client(signed), QueueId::new(QUEUE), messages());
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                client.send(&queue, &messages).await.expect("an answer");
            }
        });
    })
}

/// Reads a batch.
fn consume() -> Run {
    let (runtime, client, source) = (runtime(), client(false), SourcePath::messages(QUEUE, GROUP));
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                client.consume(&source, &ConsumeOptions::default()).await.expect("a batch");
            }
        });
    })
}

/// Encodes an acknowledgement, reads the answer.
fn acknowledge() -> Run {
    let (runtime, client, source) = (runtime(), client(false), SourcePath::messages(QUEUE, GROUP));
    let acks = vec![(AckHandle::new("A".repeat(32)), AckStatus::Success); BATCH];
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                client.acknowledge(&source, &acks).await.expect("an answer");
            }
        });
    })
}

/// Reads the signature of a send and checks it.
fn verify() -> Run {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("127.0.0.1:9400"));
    headers.insert(DATE_HEADER, HeaderValue::from_static("20261122T203300Z"));
    let text = "SDK-HMAC-SHA256 Access=EXAMPLEKEY, SignedHeaders=host;x-sdk-date, Signature=00";
    let (secret, body) = ("a secret key".to_owned().into(), vec![b'x'; BATCH * SIZE]);
    let now: jiff::Timestamp = "2026-11-22T20:33:00Z".parse().expect("a time");
    Box::new(move |count| {
        for _ in 0..count {
            let request = RequestParts {
                method: &Method::POST,
                path: "/v2/local/queues",
                query: "",
                headers: &headers,
                body: &body,
            };
            let authorization = Authorization::parse(text).expect("a header");
            // The signature is wrong, which takes as long to find out.
            authorization.verify(&secret, &request, now.into()).expect_err("another signature");
        }
    })
}

/// Collects ten messages into a request and returns the result of each.
fn producer() -> Run {
    let (runtime, client, messages) = (runtime(), client(false), messages());
    Box::new(move |count| {
        runtime.block_on(async {
            let producer = Producer::builder(client.clone(), QUEUE).build().expect("a producer");
            for _ in 0..count {
                let mut receipts = Vec::with_capacity(BATCH);
                for message in &messages {
                    receipts.push(producer.enqueue(message.clone()).await.expect("room"));
                }
                producer.flush().await.expect("all sent");
                for receipt in receipts {
                    receipt.await.expect("sent");
                }
            }
        });
    })
}

/// Counts batches, and notifies when the wanted number is reached.
struct Enough {
    left: AtomicU64,
    reached: Notify,
}

impl Observer for Enough {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        let settled = matches!(event, Event::Settled { result: AckResult::Answered { .. }, .. });
        if settled && self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1) {
            self.reached.notify_one();
        }
    }
}

/// A batch from the poll to the acknowledgement.
fn worker() -> Run {
    let (runtime, client) = (runtime(), client(false));
    Box::new(move |count| {
        runtime.block_on(async {
            let enough = Arc::new(Enough { left: AtomicU64::new(count), reached: Notify::new() });
            let handler = handler_fn(|_: Delivery| async { Ok(()) });
            let worker =
                Worker::builder(client.clone()).queue(QUEUE).group(GROUP).handler(handler).observer(enough.clone());
            // The transport repeats the same messages, so the worker must not remember them.
            let worker = worker.remember_finished(false).build().expect("a worker");
            worker.run(async move { enough.reached.notified().await }).await.expect("no refusal");
        });
    })
}

/// Appends, leases and settles a batch.
fn broker(on_disk: bool) -> Run {
    let runtime = runtime();
    let dir = on_disk.then(|| tempfile::tempdir().expect("a directory"));
    let (broker, path) = runtime.block_on(async {
        let (config, clock) = (EmbeddedConfig::default(), Clock::system());
        let broker = match &dir {
            Some(dir) => EmbeddedBroker::open(dir.path(), config, clock).await.expect("a directory"),
            None => EmbeddedBroker::in_memory(config, clock).await,
        };
        let project = ProjectId::new(PROJECT);
        let queue = broker.create_queue(&project, NewQueue::new("bench")).await.expect("a queue").id;
        let groups = broker.create_groups(&project, &queue, &["bench".to_owned()]).await.expect("a group");
        let group = groups.into_iter().next().expect("one group");
        (broker, GroupPath { project, queue, group })
    });
    let json = Bytes::from(format!(r#"{{"body":{},"attributes":{{}}}}"#, body()));
    let message = NewMessage {
        json,
        body_bytes: SIZE,
        tags: Vec::new(),
        delay: Duration::ZERO,
        origin: None,
        deduplication: None,
    };
    let request = LeaseRequest {
        max_messages: BATCH,
        max_bytes: 524_288,
        wait: Duration::from_secs(1),
        ack_wait: Duration::from_secs(30),
        filter: TagFilter::default(),
    };
    Box::new(move |count| {
        // Removed when the path is dropped.
        let _dir = &dir;
        runtime.block_on(async {
            for _ in 0..count {
                broker.append(&path.project, &path.queue, vec![message.clone(); BATCH]).await.expect("room");
                let leased = broker.lease(&path, Stream::Messages, request.clone()).await.expect("a batch");
                let acks = leased
                    .into_iter()
                    .map(|one| Ack { receipt: one.receipt, status: broker::AckStatus::Success })
                    .collect();
                broker.ack(&path, Stream::Messages, acks).await.expect("a lease");
            }
        });
    })
}

/// A server in memory with a queue and a group, and a client of it.
async fn serving() -> (Server, Client, SourcePath) {
    let server = Server::bind(ServerConfig::default().listen(None::<std::net::SocketAddr>)).await.expect("a server");
    let transport = Arc::new(InProcess::new(server.service()));
    let client = Client::builder("http://server", PROJECT).transport(transport).build().expect("a client");
    let source = new_group(&client).await;
    (server, client, source)
}

/// Creates a queue with a group.
pub(crate) async fn new_group(client: &Client) -> SourcePath {
    let queue = client.create_queue(NewQueue::new("bench")).await.expect("a queue").id;
    let groups = client.create_groups(&queue, &["bench"]).await.expect("a group");
    let (group, _) = groups.into_iter().next().expect("one group");
    SourcePath::messages(queue, group)
}

/// The same through the router of a server.
fn server_cycle() -> Run {
    let runtime = runtime();
    let (_, client, source) = runtime.block_on(serving());
    cycle(runtime, client, source)
}

/// Sends, receives and acknowledges a batch.
pub(crate) fn cycle(runtime: Runtime, client: Client, source: SourcePath) -> Run {
    let messages = messages();
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                client.send(&source.queue, &messages).await.expect("an answer");
                let batch = client.consume(&source, &ConsumeOptions::default()).await.expect("a batch");
                let acks: Vec<_> = batch.into_iter().map(|one| (one.handle, AckStatus::Success)).collect();
                client.acknowledge(&source, &acks).await.expect("an answer");
            }
        });
    })
}

/// Sends a batch to a server without a client: from the bytes of the request to the bytes of the answer.
fn server_send() -> Run {
    let runtime = runtime();
    let (server, _, source) = runtime.block_on(serving());
    let router = server.service();
    let uri = Uri::try_from(format!("/v2/{PROJECT}/queues/{}/messages", source.queue)).expect("a path");
    let message = format!(r#"{{"body":{},"attributes":{{}}}}"#, body());
    let body = Bytes::from(format!(r#"{{"messages":[{}]}}"#, vec![message; BATCH].join(",")));
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                let mut request = Request::new(HttpBody::from(body.clone()));
                (*request.method_mut(), *request.uri_mut()) = (Method::POST, uri.clone());
                let Ok(answer) = router.clone().oneshot(request).await;
                assert_eq!(answer.status(), StatusCode::CREATED);
                answer.into_body().collect().await.expect("an answer");
            }
        });
    })
}
