//! The producer: full requests, one answer per message, nothing lost, doubled or reordered.

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
    producer::{ProducerBuilder, Receipt, SendError, TrySendError},
    queue::QueueId,
    retry::RetryPolicy,
    transport::{Transport, TransportError},
};
use futures_util::future::join_all;
use http::{Request, Response};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
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
    /// Every second message fails by itself.
    Partly,
}

/// A queue that stores what it is sent, and fails as it is told; when that is used up, it works.
#[derive(Debug, Default)]
struct Service {
    fates: Mutex<Vec<Fate>>,
    delay: Duration,
    stored: Mutex<Vec<u64>>,
    requests: Mutex<Vec<(usize, usize)>>,
    in_flight: Mutex<(usize, usize)>,
}

impl Service {
    fn new(delay: Duration, fates: impl IntoIterator<Item = Fate>) -> Arc<Self> {
        let mut fates: Vec<_> = fates.into_iter().collect();
        fates.reverse();
        Arc::new(Self { fates: Mutex::new(fates), delay, ..Self::default() })
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

    fn store(&self, fate: Fate, body: &[u8]) -> Value {
        let request: Value = serde_json::from_slice(body).unwrap();
        let messages = request["messages"].as_array().unwrap();
        self.requests.lock().unwrap().push((messages.len(), body.len()));
        let mut results = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            if fate == Fate::Partly && index % 2 == 1 {
                results.push(json!({"state": 1, "error_code": "DMS.10250002", "error": "Internal service error."}));
                continue;
            }
            if matches!(fate, Fate::Stored | Fate::LostAfter | Fate::Partly) {
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
        let fate = self.fates.lock().unwrap().pop().unwrap_or(Fate::Stored);
        if fate == Fate::Refused {
            return Err(TransportError::not_sent("connection refused"));
        }
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
        }
        let never = timeout(self.delay, std::future::pending::<()>());
        let _ = never.await;
        let results = self.store(fate, request.body());
        self.in_flight.lock().unwrap().0 -= 1;
        let (status, answer) = match fate {
            Fate::Stored | Fate::Partly => (201, results),
            Fate::Throttled => (404, json!({"error_code": "DMS.10240407", "error_msg": "too frequent"})),
            Fate::Failed => (500, json!({"error_code": "DMS.10250002", "error_msg": "Internal service error."})),
            _ => return Err(TransportError::unsure("unexpected end of file")),
        };
        Ok(Response::builder().status(status).body(answer.to_string().into()).unwrap())
    }
}

fn message(n: u64, padding: usize) -> Message {
    Message::json(&json!({"n": n, "pad": "x".repeat(padding)})).unwrap()
}

async fn accept_all(producer: &Producer, sizes: &[usize]) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for (n, &size) in (0..).zip(sizes) {
        receipts.push(producer.accept(message(n, size)).await.unwrap());
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
            message(4, 1).delay(Duration::from_secs(604_801)),
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
async fn an_unsure_send_is_reported_and_not_repeated() {
    for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Failed] {
        let service = Service::new(Duration::ZERO, [fate]);
        let producer = service.builder().build().unwrap();
        let error = producer.send(message(0, 1)).await.unwrap_err();
        assert!(error.is_unsure() && error.is_retryable(), "{fate:?}: {error}");
        assert_eq!(service.requests().len(), 1);
        let report = producer.close(Duration::ZERO).await;
        assert_eq!((report.sent, report.failed, report.unsure), (0, 0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsure_send_is_repeated_where_duplicates_are_allowed() {
    let service = Service::new(Duration::ZERO, [Fate::LostAfter, Fate::Failed, Fate::LostBefore]);
    let producer = service.builder().allow_duplicates(true).build().unwrap();
    producer.send(message(0, 1)).await.unwrap();
    assert_eq!(service.stored(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_for_and_then_given_up() {
    let outage = |count| std::iter::repeat_n(Fate::Refused, count);
    let service = Service::new(Duration::ZERO, outage(6));
    let producer = service.builder().build().unwrap();
    producer.send(message(0, 1)).await.unwrap();

    let service = Service::new(Duration::ZERO, outage(1000));
    let producer = service.builder().patience(Duration::from_secs(20)).build().unwrap();
    let started = Instant::now();
    let error = producer.send(message(0, 1)).await.unwrap_err();
    assert!(!error.is_unsure() && error.is_retryable(), "{error}");
    assert!(started.elapsed() <= Duration::from_secs(20) && started.elapsed() > Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn only_the_messages_that_failed_are_repeated() {
    let service = Service::new(Duration::ZERO, [Fate::Partly]);
    let producer = service.builder().build().unwrap();
    let results = producer.send_all((0..4).map(|n| message(n, 1))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(service.stored(), [0, 2, 1, 3]);
}

#[tokio::test(start_paused = true)]
async fn as_many_requests_are_on_their_way_as_may_be() {
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
    producer.send(refused).await.unwrap();
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
async fn closing_gives_up_at_its_deadline_and_says_what_did_not_make_it() {
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
fn a_bound_that_cannot_work_is_refused() {
    let service = Service::new(Duration::ZERO, []);
    assert!(service.builder().max_in_flight(0).build().is_err());
    assert!(service.builder().max_pending(0, MAX_BYTES).build().is_err());
    assert!(service.builder().max_pending(1, MAX_BYTES - 1).build().is_err());
    assert!(service.builder().linger(Duration::from_secs(61)).build().is_err());
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Stored),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Throttled),
        1 => Just(Fate::Failed),
        1 => Just(Fate::LostBefore),
        1 => Just(Fate::LostAfter),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 1..300usize, 2 => 20_000..200_000usize, 1 => 400_000..500_000usize]
}

/// Sends messages of these sizes under these faults, and gives what became of each.
fn play(service: &Arc<Service>, builder: ProducerBuilder, sizes: &[usize]) -> Vec<Result<(), SendError>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let producer = builder.build().unwrap();
        let receipts = accept_all(&producer, sizes).await;
        let results = join_all(receipts).await;
        producer.close(Duration::from_secs(1)).await;
        for (messages, bytes) in service.requests() {
            assert!(messages <= 10 && (messages == 1 || bytes <= MAX_BYTES), "{messages} messages of {bytes} bytes");
        }
        results.into_iter().map(|result| result.map(drop)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_message_is_stored_as_often_as_its_answer_says(
        sizes in prop::collection::vec(size(), 1..40),
        fates in prop::collection::vec(prop_oneof![6 => fate(), 1 => Just(Fate::Partly)], 0..40),
        in_flight in 1..5usize,
    ) {
        let service = Service::new(Duration::from_millis(3), fates);
        let results = play(&service, service.builder().max_in_flight(in_flight).max_pending(30, 1 << 20), &sizes);
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
        sizes in prop::collection::vec(size(), 1..40),
        fates in prop::collection::vec(fate(), 0..40),
    ) {
        let service = Service::new(Duration::from_millis(3), fates);
        play(&service, service.builder().ordered(true), &sizes);
        let stored = service.stored();
        prop_assert!(stored.is_sorted(), "{:?}", stored);
    }

    #[test]
    fn without_faults_nothing_is_lost_doubled_or_reordered(
        sizes in prop::collection::vec(size(), 1..40),
    ) {
        let service = Service::new(Duration::from_millis(3), []);
        let results = play(&service, service.builder().ordered(true), &sizes);
        prop_assert!(results.iter().all(Result::is_ok));
        prop_assert!(service.stored().into_iter().eq(0..sizes.len() as u64));
    }
}
