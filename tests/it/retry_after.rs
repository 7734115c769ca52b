//! A proxy that asks for a pause of a day stops no part of the library for a day.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_server::{Project, Server, ServerConfig, clock::Clock};
use dms_worker::{
    Client, Producer,
    message::Message,
    queue::{NewQueue, QueueId, SourcePath},
    redrive::Redrive,
    transport::{InProcess, Transport, TransportError},
    worker::{HandlerError, Worker, WorkerHandle, handler_fn},
};
use http::{Method, Request, Response};
use tokio::time::{Instant, timeout};

/// A day, as seconds and as a date that is far away.
const LONG: [&str; 3] = ["86400", "99999999999999999999", "Sat, 01 Jan 2124 00:00:00 GMT"];
/// The longest pause, and a margin.
const BOUND: Duration = Duration::from_secs(310);

/// Distinguishes the requests that get the answer from others.
type Which = fn(&Request<Bytes>) -> bool;

/// Answers in place of the service, once for each pause that is set: with 503 and this `Retry-After`.
struct Proxy {
    inner: InProcess,
    /// The requests that it answers, and its answers.
    answers: Mutex<Vec<(Which, &'static str)>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxy")
    }
}

#[async_trait]
impl Transport for Proxy {
    async fn send(&self, request: Request<Bytes>, wait: Duration) -> Result<Response<Bytes>, TransportError> {
        let found = {
            let mut answers = self.answers.lock().unwrap();
            let place = answers.iter().position(|(meets, _)| meets(&request));
            place.map(|place| answers.remove(place).1)
        };
        match found {
            Some(pause) => Ok(Response::builder()
                .status(503)
                .header("Retry-After", pause)
                .body(Bytes::from_static(b"busy"))
                .unwrap()),
            None => self.inner.send(request, wait).await,
        }
    }
}

fn is_poll(request: &Request<Bytes>) -> bool {
    request.method() == Method::GET && request.uri().path().ends_with("/messages")
}

fn is_send(request: &Request<Bytes>) -> bool {
    request.method() == Method::POST && request.uri().path().ends_with("/messages")
}

fn is_poll_of_dead_letters(request: &Request<Bytes>) -> bool {
    request.method() == Method::GET && request.uri().path().ends_with("/deadletters")
}

struct World {
    _server: Server,
    proxy: Arc<Proxy>,
    client: Client,
    queue: QueueId,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::following_tokio(SystemTime::now());
        let config = ServerConfig::default().projects(vec![Project::new("p1")]).clock(clock);
        let server = Server::bind(config).await.unwrap();
        let proxy = Arc::new(Proxy { inner: InProcess::new(server.service()), answers: Mutex::default() });
        let client = Client::builder("http://in.process", "p1").transport(proxy.clone()).build().unwrap();
        let queue = client.create_queue(NewQueue::new("orders").dead_letters_after(1)).await.unwrap().id;
        client.create_groups(&queue, &["billing"]).await.unwrap();
        Self { _server: server, proxy, client, queue }
    }

    fn meet(&self, which: Which, pause: &'static str) {
        self.proxy.answers.lock().unwrap().push((which, pause));
    }

    async fn send(&self) {
        for outcome in self.client.send(&self.queue, &[Message::text("x")]).await.unwrap() {
            outcome.unwrap();
        }
    }

    /// A worker, and the messages that its handler receives.
    fn worker(&self, fails: bool) -> (WorkerHandle, tokio::sync::mpsc::UnboundedReceiver<()>) {
        let (seen, handled) = tokio::sync::mpsc::unbounded_channel();
        let handler = handler_fn(move || {
            seen.send(()).unwrap();
            async move { if fails { Err(HandlerError::retry("poison")) } else { Ok(()) } }
        });
        let worker =
            Worker::builder(self.client.clone()).queue("orders").group("billing").handler(handler).build().unwrap();
        let handle = worker.handle();
        tokio::spawn(worker.run(std::future::pending()));
        (handle, handled)
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_polls_again_after_five_minutes() {
    for pause in LONG {
        let world = World::new().await;
        world.meet(is_poll, pause);
        let (handle, mut handled) = world.worker(false);
        let began = Instant::now();
        world.send().await;
        timeout(BOUND, handled.recv()).await.unwrap_or_else(|_| panic!("nothing is fetched after {pause:?}"));
        assert!(began.elapsed() >= Duration::from_secs(290), "the pause is made, as far as it may be: {pause:?}");
        handle.stop();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_once_and_says_how_long_to_wait() {
    for pause in LONG {
        let world = World::new().await;
        world.meet(is_send, pause);
        let began = Instant::now();
        let error = world.client.send(&world.queue, &[Message::text("x")]).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(300)), "{pause:?}");
        assert!(error.is_retryable() && began.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_does_not_wait_for_a_long_retry_after() {
    for pause in LONG {
        let world = World::new().await;
        world.meet(is_send, pause);
        let producer = Producer::builder(world.client.clone(), world.queue.clone()).build().unwrap();
        timeout(BOUND, producer.send(Message::text("x"))).await.expect("it does not wait for a day").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_redrive_does_not_wait_for_a_long_retry_after() {
    for pause in LONG {
        let world = World::new().await;
        let (handle, mut handled) = world.worker(true);
        world.send().await;
        handled.recv().await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        handle.stop();
        let group = world.client.find_group(&world.queue, "billing").await.unwrap().id;
        world.meet(is_poll_of_dead_letters, pause);
        world.meet(is_send, pause);
        let redrive = Redrive::new(world.client.clone(), SourcePath::dead_letters(world.queue.clone(), group));
        let report = timeout(BOUND * 2, redrive.run(std::future::pending())).await.expect("within minutes").unwrap();
        assert_eq!(report.redriven, 1, "{pause:?}");
    }
}
