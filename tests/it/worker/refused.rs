//! A key or a user that is refused while a worker runs: the worker waits, and one request at a time tries it again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Client, Worker,
    message::Message,
    producer::ProducerBuilder,
    queue::NewQueue,
    testing::TestServer,
    transport::{InProcess, Transport, TransportError},
    worker::handler_fn,
};
use http::{Request, Response};
use tokio::time::{Instant, sleep};

const LOCKED: &str = r#"{"error_code":"APIGW.0301","error_msg":"Incorrect IAM authentication information: AK access failed to reach the limit,forbidden"}"#;
const EXPIRED: &str = r#"{"error_code":"APIGW.0301","error_msg":"calc ak sk signature fail:signature expired: X-Sdk-Date is 2000 s off"}"#;
const WRONG: &str = r#"{"error_code":"APIGW.0301","error_msg":"verify aksk signature fail"}"#;
const FORBIDDEN: &str = r#"{"error_code":"DMS.00403002","error_msg":"No permission."}"#;

/// A service that can refuse all requests.
#[derive(Clone, Debug)]
struct Door {
    service: InProcess,
    shut: Arc<Mutex<Option<(u16, &'static str)>>>,
    /// When requests arrived while it refused them.
    knocks: Arc<Mutex<Vec<Instant>>>,
}

impl Door {
    async fn new() -> (Self, TestServer) {
        let server = TestServer::start().await;
        server.group(NewQueue::new("orders"), "billing").await;
        let service = InProcess::new(server.server().service());
        (Self { service, shut: Arc::default(), knocks: Arc::default() }, server)
    }

    fn client(&self) -> Client {
        let builder = Client::builder("http://in.process", "test").access_key("AK", "SK");
        builder.transport(Arc::new(self.clone())).build().unwrap()
    }

    fn shut(&self, status: u16, body: &'static str) {
        *self.shut.lock().unwrap() = Some((status, body));
    }

    fn open(&self) {
        *self.shut.lock().unwrap() = None;
    }

    fn knocks(&self) -> Vec<Instant> {
        self.knocks.lock().unwrap().clone()
    }
}

#[async_trait]
impl Transport for Door {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        let shut = *self.shut.lock().unwrap();
        let Some((status, body)) = shut else { return self.service.send(request, timeout).await };
        self.knocks.lock().unwrap().push(Instant::now());
        tokio::task::yield_now().await;
        Ok(Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap())
    }
}

/// Runs a worker that works, is refused so for 20 minutes, and works again.
async fn is_waited_out(status: u16, body: &'static str) -> Vec<Instant> {
    let (door, _server) = Door::new().await;
    let client = door.client();
    let queue = client.find_queue("orders").await.unwrap().id;
    let handler = handler_fn(|| async { Ok(()) });
    let worker =
        Worker::builder(client).queue("orders").group("billing").handler(handler).concurrency(64).build().unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    let sender = Client::builder("http://in.process", "test").transport(Arc::new(door.service.clone()));
    let sender = sender.build().unwrap();
    let send = async |count: usize| {
        for _ in 0..count {
            for sent in sender.send(&queue, &vec![Message::text("m"); 10]).await.unwrap() {
                sent.unwrap();
            }
        }
    };
    // Many messages, so that there are several pollers.
    send(100).await;
    while handle.status().counts.done < 500 {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(handle.refusal(), None);
    door.shut(status, body);
    sleep(Duration::from_secs(20 * 60)).await;
    assert!(!running.is_finished(), "the worker has ended");
    let refusal = handle.refusal().expect("it is not seen from outside");
    assert!(refusal.contains(if status == 403 { "give the user the rights" } else { "the" }), "{refusal}");
    door.open();
    sleep(Duration::from_secs(5 * 60 + 5)).await;
    send(1).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((handle.status().counts.done, handle.refusal()), (1010, None));
    handle.stop();
    running.await.unwrap().unwrap();
    door.knocks()
}

/// The pauses between attempts; concurrent attempts count as one.
fn pauses(knocks: &[Instant]) -> Vec<Duration> {
    knocks.windows(2).map(|pair| pair[1] - pair[0]).filter(|pause| *pause > Duration::from_secs(5)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_has_worked_is_waited_for_and_tried_by_one_request() {
    for body in [WRONG, LOCKED, EXPIRED, "no json"] {
        let knocks = is_waited_out(401, body).await;
        let last_of_the_first = knocks.iter().take_while(|knock| **knock - knocks[0] < Duration::from_secs(29)).count();
        let trials = &knocks[last_of_the_first - 1..];
        let pauses: Vec<_> = trials.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
        assert!(pauses.iter().all(|pause| (29..=302).contains(pause)), "{body}: {pauses:?}");
        assert!(pauses.last().unwrap() > &200 && (4..12).contains(&pauses.len()), "{body}: {pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rights_that_are_taken_away_are_waited_for() {
    let pauses = pauses(&is_waited_out(403, FORBIDDEN).await);
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(301)), "{pauses:?}");
    assert!(pauses[0] >= Duration::from_secs(29), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn at_the_start_a_lock_or_a_clock_is_waited_for_and_a_wrong_key_ends_the_worker() {
    for (body, waits) in [(LOCKED, true), (EXPIRED, true), (WRONG, false)] {
        let (door, server) = Door::new().await;
        door.shut(401, body);
        let handler = handler_fn(|| async { Ok(()) });
        let worker = Worker::builder(door.client()).queue("orders").group("billing").handler(handler).build().unwrap();
        let handle = worker.handle();
        let running = tokio::spawn(worker.run(std::future::pending()));
        sleep(Duration::from_secs(10 * 60)).await;
        assert_eq!(running.is_finished(), !waits, "{body}");
        if !waits {
            let error = running.await.unwrap().unwrap_err();
            assert!(error.client_error().is_some_and(|error| error.is_auth() && !error.is_retryable()), "{error}");
            assert_eq!(door.knocks().len(), 1);
            continue;
        }
        assert!(handle.refusal().is_some());
        assert!(door.knocks().len() < 8, "{}", door.knocks().len());
        door.open();
        sleep(Duration::from_secs(5 * 60 + 5)).await;
        assert!(handle.status().last_poll_age.is_some());
        handle.stop();
        running.await.unwrap().unwrap();
        drop(server);
    }
}

/// A producer waits for the key as long as its messages may wait, and fails messages at once that cannot wait that long.
#[tokio::test(start_paused = true)]
async fn a_producer_waits_for_the_key_within_its_time() {
    let (door, _server) = Door::new().await;
    let client = door.client();
    let patient = ProducerBuilder::find(client.clone(), "orders").await.unwrap();
    let patient = patient.delivery_timeout(Duration::from_secs(120)).build().unwrap();
    let hasty = ProducerBuilder::find(client, "orders").await.unwrap();
    let hasty = hasty.delivery_timeout(Duration::from_secs(10)).build().unwrap();
    door.shut(401, LOCKED);
    let began = Instant::now();
    let error = hasty.send(Message::text("m")).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_unsure() && error.to_string().contains("reach the limit"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let open = async {
        sleep(Duration::from_secs(10)).await;
        door.open();
    };
    let (sent, ()) = tokio::join!(patient.send(Message::text("m")), open);
    sent.unwrap();
    assert!((29..45).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(door.knocks().len(), 1);
}
