//! The producer: full requests, one result per message, nothing lost, duplicated or reordered.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    Client, Producer,
    limits::MAX_BYTES,
    message::Message,
    producer::{ProducerBuilder, ProducerMetrics, SendError, SendFuture, TrySendError},
    queue::QueueId,
    retry::RetryPolicy,
    transport::{Transport, TransportError},
};
use futures_util::future::join_all;
use http::{Request, Response};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// The scripted outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Stored,
    /// The connection is refused.
    Refused,
    /// The service asks for fewer requests.
    Throttled,
    /// The service fails and stores nothing; the client cannot know.
    Failed,
    /// The request is lost before the service has it.
    LostBefore,
    /// The answer is lost after the messages were stored.
    LostAfter,
    /// Every second message fails alone.
    Partly,
}

/// A queue that stores messages and fails according to a script; after the script it works.
#[derive(Debug, Default)]
struct Service {
    replies: Mutex<Vec<Reply>>,
    delay: Duration,
    stored: Mutex<Vec<u64>>,
    requests: Mutex<Vec<(usize, usize)>>,
    in_flight: Mutex<(usize, usize)>,
}

impl Service {
    fn new(delay: Duration, replies: impl IntoIterator<Item = Reply>) -> Arc<Self> {
        let mut replies: Vec<_> = replies.into_iter().collect();
        replies.reverse();
        Arc::new(Self { replies: Mutex::new(replies), delay, ..Self::default() })
    }

    fn builder(self: &Arc<Self>) -> ProducerBuilder {
        let transport: Arc<dyn Transport> = self.clone();
        let client = Client::builder("http://dms.test", "p1").transport(transport).retry(RetryPolicy::never());
        Producer::builder(client.build().unwrap(), "q1")
    }

    fn stored(&self) -> Vec<u64> {
        self.stored.lock().unwrap().clone()
    }

    /// The number of messages and bytes of each request.
    fn requests(&self) -> Vec<(usize, usize)> {
        self.requests.lock().unwrap().clone()
    }

    fn most_in_flight(&self) -> usize {
        self.in_flight.lock().unwrap().1
    }

    fn store(&self, reply: Reply, body: &[u8]) -> Value {
        let request: Value = serde_json::from_slice(body).unwrap();
        let messages = request["messages"].as_array().unwrap();
        self.requests.lock().unwrap().push((messages.len(), body.len()));
        let mut results = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            if reply == Reply::Partly && index % 2 == 1 {
                results.push(json!({"state": 1, "error_code": "DMS.10250002", "error": "Internal service error."}));
                continue;
            }
            if matches!(reply, Reply::Stored | Reply::LostAfter | Reply::Partly) {
                self.stored.lock().unwrap().push(message["body"]["n"].as_u64().unwrap());
            }
            results.push(json!({"state": 0, "error": null, "error_code": null}));
        }
        json!({"messages": results})
    }
}

#[async_trait]
impl Transport for Service {
    async fn send(&self, request: Request<Bytes>, _: Duration) -> Result<Response<Bytes>, TransportError> {
        let reply = self.replies.lock().unwrap().pop().unwrap_or(Reply::Stored);
        if reply == Reply::Refused {
            return Err(TransportError::not_sent("connection refused"));
        }
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
        }
        let never = timeout(self.delay, std::future::pending::<()>());
        let _ = never.await;
        let results = self.store(reply, request.body());
        self.in_flight.lock().unwrap().0 -= 1;
        let (status, answer) = match reply {
            Reply::Stored | Reply::Partly => (201, results),
            Reply::Throttled => (404, json!({"error_code": "DMS.10240407", "error_msg": "too frequent"})),
            Reply::Failed => (500, json!({"error_code": "DMS.10250002", "error_msg": "Internal service error."})),
            _ => return Err(TransportError::unsure("unexpected end of file")),
        };
        Ok(Response::builder().status(status).body(answer.to_string().into()).unwrap())
    }
}

fn message(n: u64, padding: usize) -> Message {
    Message::json(&json!({"n": n, "pad": "x".repeat(padding)})).unwrap()
}

async fn accept_all(producer: &Producer, sizes: &[usize]) -> Vec<SendFuture> {
    let mut receipts = Vec::new();
    for (n, &size) in (0..).zip(sizes) {
        receipts.push(producer.enqueue(message(n, size)).await.unwrap());
    }
    receipts
}

#[tokio::test(start_paused = true)]
async fn a_full_request_goes_at_once_and_the_rest_lingers() {
    let service = Service::new(Duration::ZERO, []);
    let producer = service.builder().linger(Duration::from_secs(1)).build().unwrap();
    let started = Instant::now();
    let receipts = accept_all(&producer, &[1; 13]).await;
    let mut receipts = receipts.into_iter();
    for receipt in receipts.by_ref().take(10) {
        receipt.await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(100));
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(service.requests().iter().map(|request| request.0).collect::<Vec<_>>(), [10, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_sent_fails_alone_and_before_the_network() {
    let service = Service::new(Duration::ZERO, []);
    let producer = service.builder().build().unwrap();
    let results = producer
        .send_all([
            message(0, 1),
            message(1, MAX_BYTES),
            message(2, 1).tag("a b"),
            message(3, 1).tag("a").tag("b").tag("c").tag("d"),
            message(4, 1).delay(Duration::from_secs(366 * 86_400 + 1)),
            message(5, 1).attribute("huge", "x".repeat(2 * MAX_BYTES)),
            message(6, 1),
        ])
        .await;
    let failed: Vec<usize> = (0..7).filter(|&index| results[index].is_err()).collect();
    assert_eq!(failed, [1, 2, 3, 4, 5]);
    for index in failed {
        assert!(matches!(results[index], Err(SendError::Limit(_))), "{:?}", results[index]);
    }
    assert!(results[1].as_ref().unwrap_err().to_string().contains("at most 524288 bytes"));
    assert_eq!(service.stored(), [0, 6]);
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_largest_body_goes_alone() {
    let service = Service::new(Duration::ZERO, []);
    let producer = service.builder().build().unwrap();
    let frame = message(0, 0).body.len();
    let results = producer.send_all([message(0, 5), message(1, MAX_BYTES - frame), message(2, 5)]).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(service.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn attributes_and_labels_count_towards_the_size_of_a_request() {
    let service = Service::new(Duration::ZERO, []);
    let producer = service.builder().build().unwrap();
    let padded = |n, bytes: usize| message(n, 1).attribute("a", "\"".repeat(bytes / 2)).tag("red");
    // Two that fit by their bodies, and by their attributes only one by one.
    let results = producer.send_all([padded(0, 300_000), padded(1, 300_000), padded(2, 524_200)]).await;
    assert!(results[0].is_ok() && results[1].is_ok());
    let error = results[2].as_ref().unwrap_err().to_string();
    assert!(error.ends_with("at most 524255 are allowed, so that its request has at most 524288 bytes"), "{error}");
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_only_the_service_refuses_fails_alone() {
    use dms_worker::{message::Body, queue::NewQueue, testing::TestServer};
    let server = TestServer::start().await;
    let queue = server.client().create_queue(NewQueue::new("q")).await.unwrap().id;
    let producer = Producer::builder(server.client(), queue).ordered(true).build().unwrap();
    let deep = Body::raw("[".repeat(200) + &"]".repeat(200)).unwrap();
    let messages = [message(0, 1), message(1, 1), Message::new(deep), message(3, 1)];
    let results = producer.send_all(messages).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true], "{results:?}");
    assert!(results[2].as_ref().unwrap_err().to_string().contains("nests deeper than the 60 levels"), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn metrics_count_the_results_of_messages_and_requests() {
    let metrics = ProducerMetrics::new();
    let replies = [Reply::Refused, Reply::Stored, Reply::LostBefore];
    let service = Service::new(Duration::from_millis(20), replies);
    let producer = service.builder().metrics(&metrics).build().unwrap();
    producer.send(message(0, 1)).await.unwrap();
    assert!(producer.send(message(1, 1)).await.unwrap_err().is_unsure());
    let waiting = producer.enqueue(message(2, 1)).await.unwrap();
    let text = metrics.encode();
    for line in [
        "dms_producer_messages_total{queue=\"q1\",outcome=\"sent\"} 1",
        "dms_producer_messages_total{queue=\"q1\",outcome=\"unsure\"} 1",
        "dms_producer_requests_total{queue=\"q1\",result=\"answered\"} 1",
        "dms_producer_requests_total{queue=\"q1\",result=\"failed\"} 1",
        "dms_producer_requests_total{queue=\"q1\",result=\"unsure\"} 1",
        "dms_producer_retries_total{queue=\"q1\"} 1",
        "dms_producer_pending_messages{queue=\"q1\"} 1",
        "dms_producer_send_duration_seconds_count{queue=\"q1\"} 2",
        "dms_producer_batch_messages_bucket{le=\"1.0\",queue=\"q1\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    waiting.await.unwrap();
    assert!(metrics.encode().contains("dms_producer_pending_bytes{queue=\"q1\"} 0\n"));
}

#[tokio::test(start_paused = true)]
async fn an_unsure_send_is_reported_and_not_repeated() {
    for reply in [Reply::LostBefore, Reply::LostAfter, Reply::Failed] {
        let service = Service::new(Duration::ZERO, [reply]);
        let producer = service.builder().build().unwrap();
        let error = producer.send(message(0, 1)).await.unwrap_err();
        assert!(error.is_unsure() && error.is_retryable(), "{reply:?}: {error}");
        assert_eq!(service.requests().len(), 1);
        let report = producer.close(Duration::ZERO).await;
        assert_eq!((report.sent, report.failed, report.unsure), (0, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsure_send_is_repeated_where_duplicates_are_allowed() {
    let service = Service::new(Duration::ZERO, [Reply::LostAfter, Reply::Failed, Reply::LostBefore]);
    let producer = service.builder().allow_duplicates(true).build().unwrap();
    producer.send(message(0, 1)).await.unwrap();
    assert_eq!(service.stored(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_and_then_given_up() {
    let outage = |count| std::iter::repeat_n(Reply::Refused, count);
    let service = Service::new(Duration::ZERO, outage(6));
    let producer = service.builder().build().unwrap();
    producer.send(message(0, 1)).await.unwrap();

    let service = Service::new(Duration::ZERO, outage(1000));
    let producer = service.builder().delivery_timeout(Duration::from_secs(20)).build().unwrap();
    let started = Instant::now();
    let error = producer.send(message(0, 1)).await.unwrap_err();
    assert!(!error.is_unsure() && error.is_retryable(), "{error}");
    assert!(started.elapsed() <= Duration::from_secs(20) && started.elapsed() > Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn only_the_messages_that_failed_are_repeated() {
    let service = Service::new(Duration::ZERO, [Reply::Partly]);
    let producer = service.builder().build().unwrap();
    let results = producer.send_all((0..4).map(|n| message(n, 1))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(service.stored(), [0, 2, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_sent_concurrently_up_to_the_limit() {
    for (ordered, expected) in [(false, 3), (true, 1)] {
        let service = Service::new(Duration::from_millis(50), []);
        let producer = service.builder().max_in_flight(3).ordered(ordered).build().unwrap();
        let results = join_all((0..200).map(|n| producer.send(message(n, 1)))).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(service.most_in_flight(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_producer_makes_senders_wait() {
    let service = Service::new(Duration::from_secs(1), []);
    let producer = service.builder().max_pending(2, MAX_BYTES).build().unwrap();
    let first = producer.try_send(message(0, 1)).unwrap();
    let _second = producer.try_send(message(1, 1)).unwrap();
    let Err(TrySendError::Full(refused)) = producer.try_send(message(2, 1)) else { panic!("it was taken") };
    let started = Instant::now();
    producer.send(*refused).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    first.await.unwrap();

    let third = producer.try_send(message(3, 400_000)).unwrap();
    assert!(matches!(producer.try_send(message(4, 400_000)), Err(TrySendError::Full(_))));
    third.await.unwrap();
    assert_eq!(service.stored(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_flush_sends_what_waits_and_answers_when_it_is_settled() {
    let service = Service::new(Duration::from_millis(10), []);
    let producer = service.builder().linger(Duration::from_secs(60)).build().unwrap();
    producer.flush().await.unwrap();
    let _receipts = accept_all(&producer, &[1; 25]).await;
    let started = Instant::now();
    producer.flush().await.unwrap();
    assert_eq!(service.stored().len(), 25);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_was_accepted() {
    let service = Service::new(Duration::from_millis(10), []);
    let producer = service.builder().linger(Duration::from_secs(60)).build().unwrap();
    let receipts = accept_all(&producer, &[1; 25]).await;
    let report = producer.close(Duration::from_secs(5)).await;
    assert_eq!((report.sent, report.failed, report.unsure, report.unsent), (25, 0, 0, 0));
    assert!(join_all(receipts).await.iter().all(Result::is_ok));
    assert!(matches!(producer.send(message(9, 1)).await, Err(SendError::Closed)));
    assert!(matches!(producer.try_send(message(9, 1)), Err(TrySendError::Closed(_))));
    assert!(matches!(producer.flush().await, Err(SendError::Closed)));
    assert_eq!(producer.close(Duration::ZERO).await.sent, 25);
}

#[tokio::test(start_paused = true)]
async fn closing_gives_up_at_its_deadline_and_reports_unsent_messages() {
    let service = Service::new(Duration::from_secs(100), []);
    let producer = service.builder().max_in_flight(1).build().unwrap();
    let receipts = accept_all(&producer, &[1; 15]).await;
    let started = Instant::now();
    let report = producer.close(Duration::from_secs(2)).await;
    assert_eq!(started.elapsed().as_secs(), 2);
    assert_eq!((report.sent, report.failed, report.unsure, report.unsent), (0, 5, 10, 5));
    let results = join_all(receipts).await;
    assert_eq!(results.iter().filter(|result| matches!(result, Err(SendError::Abandoned))).count(), 10);
    assert_eq!(results.iter().filter(|result| matches!(result, Err(SendError::Closed))).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handles_loses_nothing() {
    let service = Service::new(Duration::from_millis(10), []);
    let producer = service.builder().linger(Duration::from_secs(60)).build().unwrap();
    let receipts = accept_all(&producer, &[1; 15]).await;
    drop(producer);
    assert!(join_all(receipts).await.iter().all(Result::is_ok));
    assert_eq!(service.stored().len(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_fifo_queue_is_found_and_kept_in_order() {
    use crate::script::{Play, Script};
    let list = Play::Answer(200, r#"{"queues":[{"id":"q7","name":"orders","queue_mode":"FIFO"}]}"#);
    let script = Script::new([list]);
    let producer = ProducerBuilder::find(script.client(), "orders").await.unwrap().build().unwrap();
    assert_eq!(producer.queue(), &QueueId::from("q7"));
}

#[test]
fn an_impossible_limit_is_refused() {
    let service = Service::new(Duration::ZERO, []);
    assert!(service.builder().max_in_flight(0).build().is_err());
    assert!(service.builder().max_pending(0, MAX_BYTES).build().is_err());
    assert!(service.builder().max_pending(1, MAX_BYTES - 1).build().is_err());
    assert!(service.builder().linger(Duration::from_secs(61)).build().is_err());
    assert!(service.builder().linger(Duration::from_micros(60_000_900)).build().is_err());
    assert!(service.builder().delivery_timeout(Duration::from_millis(86_400_900)).build().is_err());
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => Just(Reply::Stored),
        1 => Just(Reply::Refused),
        1 => Just(Reply::Throttled),
        1 => Just(Reply::Failed),
        1 => Just(Reply::LostBefore),
        1 => Just(Reply::LostAfter),
    ]
}

/// One message, and how it arrives.
#[derive(Clone, Debug)]
struct Arrival {
    /// Characters of the body that JSON writes as two.
    padding: usize,
    /// Characters of an attribute, none for no attribute.
    attribute: usize,
    labels: usize,
    delayed: bool,
    /// Milliseconds since the one before.
    gap: u64,
    /// Whether waiting messages are flushed after it.
    flush: bool,
}

impl Arrival {
    fn message(&self, n: u64) -> Message {
        let body = json!({"n": n, "pad": "\n".repeat(self.padding)});
        let mut message = Message::json(&body).unwrap();
        if self.attribute > 0 {
            message = message.attribute("quoted", "\"".repeat(self.attribute));
        }
        for label in 0..self.labels {
            message = message.tag(format!("label-{label}"));
        }
        if self.delayed { message.delay(Duration::from_secs(5)) } else { message }
    }
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let size = prop_oneof![16 => 1..300usize, 2 => 10_000..100_000usize, 1 => 200_000..270_000usize];
    let attribute = prop_oneof![10 => Just(0usize), 6 => 1..200usize, 1 => 20_000..270_000usize];
    let gap = prop_oneof![5 => Just(0u64), 2 => 1..8u64, 1 => 20..200u64];
    (size, attribute, 0..=3usize, any::<bool>(), gap, prop::bool::weighted(0.05)).prop_map(
        |(padding, attribute, labels, delayed, gap, flush)| Arrival { padding, attribute, labels, delayed, gap, flush },
    )
}

/// Sends messages as they arrive under the service's faults, and returns the result of each.
fn play(service: &Arc<Service>, builder: ProducerBuilder, arrivals: &[Arrival]) -> Vec<Result<(), SendError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let results = runtime.block_on(async {
        let producer = builder.build().unwrap();
        let mut flushes = Vec::new();
        let mut receipts = Vec::new();
        for (n, arrival) in (0..).zip(arrivals) {
            let _ = timeout(Duration::from_millis(arrival.gap), std::future::pending::<()>()).await;
            receipts.push(producer.enqueue(arrival.message(n)).await);
            if arrival.flush {
                let producer = producer.clone();
                flushes.push(tokio::spawn(async move { producer.flush().await }));
            }
        }
        let results = join_all(receipts.into_iter().map(async |receipt| receipt?.await.map(drop))).await;
        for flush in flushes {
            flush.await.unwrap().unwrap();
        }
        let report = producer.close(Duration::from_secs(1)).await;
        let accepted = results.iter().filter(|result| !matches!(result, Err(SendError::Limit(_)))).count();
        assert_eq!(report.sent + report.failed + report.unsure, accepted as u64);
        results
    });
    for (messages, bytes) in service.requests() {
        assert!(messages <= 10 && bytes <= MAX_BYTES, "{messages} messages of {bytes} bytes");
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_message_is_stored_as_often_as_its_answer_says(
        arrivals in prop::collection::vec(arrival(), 1..30),
        replies in prop::collection::vec(prop_oneof![6 => reply(), 1 => Just(Reply::Partly)], 0..40),
        in_flight in 1..5usize,
        linger in 0..20u64,
    ) {
        let service = Service::new(Duration::from_millis(3), replies);
        let builder = service.builder().max_in_flight(in_flight).linger(Duration::from_millis(linger));
        let results = play(&service, builder.max_pending(30, 1 << 20), &arrivals);
        let stored = service.stored();
        for (n, result) in (0..).zip(&results) {
            let copies = stored.iter().filter(|&&stored| stored == n).count();
            match result {
                Ok(()) => prop_assert_eq!(copies, 1, "message {}", n),
                Err(error) if error.is_unsure() => prop_assert!(copies <= 1, "message {}", n),
                Err(_) => prop_assert_eq!(copies, 0, "message {}", n),
            }
        }
    }

    #[test]
    fn order_is_kept_through_every_fault(
        arrivals in prop::collection::vec(arrival(), 1..30),
        replies in prop::collection::vec(reply(), 0..40),
    ) {
        let service = Service::new(Duration::from_millis(3), replies);
        play(&service, service.builder().ordered(true), &arrivals);
        let stored = service.stored();
        prop_assert!(stored.is_sorted(), "{:?}", stored);
    }

    #[test]
    fn with_duplicates_allowed_nothing_is_missing_and_no_new_message_overtakes(
        arrivals in prop::collection::vec(arrival(), 1..30),
        replies in prop::collection::vec(reply(), 0..20),
    ) {
        let service = Service::new(Duration::from_millis(3), replies);
        let builder = service.builder().ordered(true).allow_duplicates(true).delivery_timeout(Duration::from_secs(3600));
        let results = play(&service, builder, &arrivals);
        let mut first = Vec::new();
        for n in service.stored() {
            if !first.contains(&n) {
                first.push(n);
            }
        }
        let sent = (0..).zip(&results).filter(|(_, result)| result.is_ok()).map(|(n, _)| n).collect::<Vec<u64>>();
        prop_assert_eq!(first, sent);
        let limits = results.iter().all(|result| matches!(result, Ok(()) | Err(SendError::Limit(_))));
        prop_assert!(limits, "{:?}", results);
    }

    #[test]
    fn without_faults_nothing_is_lost_doubled_or_reordered(
        arrivals in prop::collection::vec(arrival(), 1..30),
    ) {
        let service = Service::new(Duration::from_millis(3), []);
        let results = play(&service, service.builder().ordered(true), &arrivals);
        let sent = (0..).zip(&results).filter(|(_, result)| result.is_ok()).map(|(n, _)| n);
        prop_assert!(service.stored().into_iter().eq(sent));
        prop_assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(SendError::Limit(_)))));
    }
}
