//! `tower` layers and services around handlers, against the embedded server under the paused clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use dms_worker::{
    layers::{
        Chaos, CircuitBreaker, CircuitState, Claim, Deduplicate, KeyStore, MemoryStore, RateLimit, Retry, Timeout,
        Token,
    },
    message::Message,
    queue::NewQueue,
    retry::RetryPolicy,
    testing::{TestGroup, TestServer},
    worker::{
        Delivery, DeliveryBuilder, Handler, HandlerError, HandlerService, Rate, ServiceHandler, batch_handler_fn,
        handler_fn,
    },
};
use tokio::time::{Instant, sleep};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

async fn orders(server: &TestServer) -> TestGroup {
    server.group(NewQueue::new("orders").dead_letters_after(3), "billing").await
}

/// Retries after 1 s, 2 s, 4 s, ... without jitter.
fn doubling(attempts: impl Into<Option<u32>>) -> RetryPolicy {
    RetryPolicy::try_new(SECOND, SECOND * 60, 2.0, 0.0).unwrap().max_attempts(attempts)
}

/// When a handler was called, and for which retry.
type Calls = Arc<Mutex<Vec<(Duration, u32)>>>;

/// A handler that records when it was called and for which retry, takes `takes`, and fails until its call number `until`.
fn failing(until: usize, takes: Duration) -> (impl Handler + Clone, Calls) {
    let (calls, began) = (Calls::default(), Instant::now());
    let seen = Arc::clone(&calls);
    let handler = handler_fn(move |delivery: Delivery| {
        let number = {
            let mut calls = seen.lock().unwrap();
            calls.push((began.elapsed(), delivery.retry()));
            calls.len()
        };
        async move {
            sleep(takes).await;
            if number < until { Err(HandlerError::retry("not yet")) } else { Ok(()) }
        }
    });
    (handler, calls)
}

fn layered<L>(handler: impl Handler, layer: &L) -> ServiceHandler<L::Service>
where
    L: Layer<HandlerService>,
    L::Service: dms_worker::worker::DeliveryService,
{
    ServiceHandler::new(layer.layer(HandlerService::new(handler)))
}

fn delivery() -> DeliveryBuilder {
    DeliveryBuilder::json("order").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_within_the_lease_and_costs_no_attempt() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send(["a"]).await;
    let (handler, calls) = failing(3, Duration::ZERO);
    let report = orders.run_worker(orders.worker(handler).layer(Retry::new(doubling(5)))).await;
    assert_eq!((report.received, report.done, report.failed), (1, 1, 0));
    let calls: Vec<_> = calls.lock().unwrap().iter().map(|(at, retry)| (at.as_secs(), *retry)).collect();
    assert_eq!(calls, [(0, 0), (1, 1), (3, 2)]);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_of_the_retries_goes_to_the_failure_policy() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send(["a"]).await;
    let (handler, calls) = failing(usize::MAX, Duration::ZERO);
    let report = orders.run_worker(orders.worker(handler).layer(Retry::new(doubling(2)))).await;
    assert_eq!((report.received, report.failed, calls.lock().unwrap().len()), (3, 3, 6));
    orders.assert_dead_lettered(["a"]).await;
}

/// 29 s of lease: tries of 4 s begin at 0, 5 and 11 s; the one after 4 s more would end at 23 s, the next after 8 s at 35 s.
#[tokio::test(start_paused = true)]
async fn a_retry_that_cannot_finish_within_the_lease_does_not_start() {
    let (handler, calls) = failing(usize::MAX, SECOND * 4);
    let began = Instant::now();
    let answer = layered(handler, &Retry::new(doubling(None))).handle(delivery().lease(SECOND * 29).build()).await;
    assert_eq!(answer.unwrap_err().to_string(), "not yet");
    let calls: Vec<_> = calls.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(calls, [0, 5, 11, 19]);
    assert_eq!(began.elapsed(), SECOND * 23, "not until the end of the lease");
}

#[tokio::test(start_paused = true)]
async fn rejects_are_not_retried_nor_is_anything_during_a_shutdown() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let handler = handler_fn(move || {
        count.fetch_add(1, SeqCst);
        async { Err(HandlerError::reject("never")) }
    });
    layered(handler, &Retry::new(doubling(5))).handle(delivery().build()).await.unwrap_err();
    assert_eq!(calls.load(SeqCst), 1);
    let (handler, calls) = failing(usize::MAX, Duration::ZERO);
    layered(handler, &Retry::new(doubling(5))).handle(delivery().shutting_down().build()).await.unwrap_err();
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_a_call_at_its_limit_or_with_the_lease() {
    for (lease, expected) in [(SECOND * 29, SECOND * 2), (SECOND, SECOND)] {
        let began = Instant::now();
        let handler = layered(handler_fn(std::future::pending), &Timeout::new(SECOND * 2));
        let error = handler.handle(delivery().lease(lease).build()).await.unwrap_err();
        assert_eq!(began.elapsed(), expected);
        assert!(error.to_string().contains(&format!("{expected:?}")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_shared_and_waits_within_the_lease() {
    let limit = RateLimit::new(Rate::try_new(1, SECOND).unwrap());
    let one = layered(handler_fn(|| async { Ok(()) }), &limit);
    let other = layered(handler_fn(|| async { Ok(()) }), &limit);
    let began = Instant::now();
    for handler in [&one, &other, &one] {
        assert!(handler.handle(delivery().build()).await.is_ok());
    }
    assert_eq!(began.elapsed(), SECOND * 2);
    let error = other.handle(delivery().lease(SECOND).build()).await.unwrap_err();
    assert!(matches!(error.kind(), dms_worker::worker::FailureKind::Defer(_)), "{error:?}");
    assert_eq!(began.elapsed(), SECOND * 5 / 2, "half of the lease was waited for");
}

/// A dependency of the handler is down for a minute: few calls are made, and no message uses up its attempts.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_stops_fetching_and_one_message_tries_again() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send(0..100).await;
    let down = Arc::new(AtomicBool::new(true));
    let failures = Arc::new(AtomicU32::new(0));
    let (is_down, failed) = (Arc::clone(&down), Arc::clone(&failures));
    let handler = handler_fn(move || {
        let down = is_down.load(SeqCst);
        failed.fetch_add(u32::from(down), SeqCst);
        async move { if down { Err(HandlerError::retry("the database is down")) } else { Ok(()) } }
    });
    let breaker = CircuitBreaker::new(3, SECOND * 10);
    let worker = orders.worker(handler).layer(breaker.clone()).concurrency(4).build().unwrap();
    breaker.attach(worker.handle());
    let mut states = breaker.states();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    sleep(SECOND * 5).await;
    assert_eq!((states.next().await, breaker.state()), (Some(CircuitState::Open), CircuitState::Open));
    let received = handle.status().counts.received;
    sleep(SECOND * 4).await;
    assert_eq!(handle.status().counts.received, received, "nothing is fetched while it is open");
    assert!(received <= 8, "{received}");
    sleep(SECOND * 51).await;
    assert!(failures.load(SeqCst) <= 3 + 6, "three, and a probe every ten seconds: {failures:?}");
    down.store(false, SeqCst);
    sleep(SECOND * 60).await;
    assert_eq!(states.next().await, Some(CircuitState::Closed));
    handle.stop();
    running.await.unwrap().unwrap();
    assert_eq!(handle.status().counts.done, 100);
    let counts = orders.counts().await;
    assert!(counts.is_idle() && counts.dead_lettered == 0, "{counts:?}");
}

/// The same order sent twice is charged once; one whose first try failed is not forgotten.
#[tokio::test(start_paused = true)]
async fn a_duplicate_is_acknowledged_without_a_call() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    let order = |number: u64| Message::json(&number).unwrap().attribute("order_id", number);
    orders.send_messages([order(1), order(1), order(2), order(1), Message::text("has no key")]).await;
    let charged = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let seen = Arc::clone(&charged);
    let handler = handler_fn(move |delivery: Delivery| {
        let seen = Arc::clone(&seen);
        async move {
            sleep(SECOND).await;
            let calls =
                { *seen.lock().unwrap().entry(delivery.body().as_str().into()).and_modify(|n| *n += 1).or_insert(1) };
            if delivery.body().as_str() == "2" && calls == 1 { Err(HandlerError::retry("not yet")) } else { Ok(()) }
        }
    });
    let layer = Deduplicate::by_attribute("order_id", MemoryStore::new(100), SECOND * 3600);
    let report = orders.run_worker(orders.worker(handler).layer(layer)).await;
    assert_eq!(
        *charged.lock().unwrap(),
        BTreeMap::from([("1".into(), 1), ("2".into(), 2), ("\"has no key\"".into(), 1)])
    );
    assert_eq!(report.deferred, 0, "those beside it waited for the first: {report:?}");
}

/// A store of keys that fails while it is down, and always for the key `poison`.
struct Flaky(MemoryStore, Arc<AtomicBool>);

impl Flaky {
    fn check(&self, key: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.1.load(SeqCst) || key == "poison" { Err("no connection".into()) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl KeyStore for Flaky {
    async fn claim(&self, key: &str, lease: Duration) -> Result<Claim, Box<dyn std::error::Error + Send + Sync>> {
        self.check(key)?;
        self.0.claim(key, lease).await
    }
    async fn done(&self, token: &Token, keep: Duration) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.check(token.key())?;
        self.0.done(token, keep).await
    }
    async fn release(&self, token: &Token) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.release(token).await
    }
}

/// An outage of the store kills no message, and costs no attempt. A message that the store refuses while it takes others is poison.
#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_store_of_keys_that_is_down() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send_messages((0..20).map(|n| Message::json(&n).unwrap().attribute("order_id", n))).await;
    let down = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let handler = handler_fn(move || {
        count.fetch_add(1, SeqCst);
        async { Ok(()) }
    });
    let layer = Deduplicate::by_attribute("order_id", Flaky(MemoryStore::new(100), Arc::clone(&down)), SECOND * 3600);
    let worker = orders.worker(handler).layer(layer).build().unwrap();
    let handle = worker.handle();
    let running = tokio::spawn(worker.run(std::future::pending()));
    sleep(SECOND * 600).await;
    let counts = handle.status().counts;
    assert_eq!((calls.load(SeqCst), counts.failed, orders.counts().await.dead_lettered), (0, 0, 0), "{counts:?}");
    assert!((1..1_500).contains(&counts.received), "they wait before they are handed back: {counts:?}");
    orders.send_messages([Message::text("x").attribute("order_id", "poison")]).await;
    down.store(false, SeqCst);
    for n in 100..160 {
        orders.send_messages([Message::json(&n).unwrap().attribute("order_id", n)]).await;
        sleep(SECOND * 5).await;
    }
    handle.stop();
    running.await.unwrap().unwrap();
    assert_eq!((calls.load(SeqCst), orders.counts().await.dead_lettered), (80, 1));
}

/// The work is done, so its key is recorded as soon as the store is back, within the same lease.
#[tokio::test(start_paused = true)]
async fn finished_work_waits_for_a_store_of_keys_that_is_down() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send_messages([Message::text("a").attribute("order_id", 1)]).await;
    let down = Arc::new(AtomicBool::new(false));
    let (goes_down, calls) = (Arc::clone(&down), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&calls);
    let handler = handler_fn(move || {
        goes_down.store(true, SeqCst);
        count.fetch_add(1, SeqCst);
        let back = Arc::clone(&goes_down);
        tokio::spawn(async move {
            sleep(SECOND * 4).await;
            back.store(false, SeqCst);
        });
        async { Ok(()) }
    });
    let layer = Deduplicate::by_attribute("order_id", Flaky(MemoryStore::new(100), down), SECOND * 3600);
    let report = orders.run_worker(orders.worker(handler).layer(layer)).await;
    assert_eq!((calls.load(SeqCst), report.done, report.failed), (1, 1, 0), "{report:?}");
}

/// A handler that panics releases its key.
#[tokio::test(start_paused = true)]
async fn a_key_is_free_again_after_a_panic() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send_messages([Message::text("a").attribute("order_id", 1)]).await;
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let handler = handler_fn(move || {
        let first = count.fetch_add(1, SeqCst) == 0;
        async move {
            assert!(!first, "planted");
            Ok(())
        }
    });
    let layer = Deduplicate::by_attribute("order_id", MemoryStore::new(100), SECOND * 3600);
    let began = Instant::now();
    let report = orders.run_worker(orders.worker(handler).layer(layer)).await;
    assert_eq!((report.panicked, report.done), (1, 1));
    assert!(began.elapsed() < SECOND * 5, "{:?}", began.elapsed());
}

/// Chaos exposes a handler that adds twice, and not one that records by key.
#[tokio::test(start_paused = true)]
async fn chaos_tells_an_idempotent_handler_from_one_that_is_not() {
    let chaos = || Chaos::new(11).failures(0.2).lost_successes(0.2).duplicates(0.2).delays(0.5, SECOND * 3);
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send(0..50_u64).await;
    let (sum, noted) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(BTreeMap::new())));
    let (adds, notes) = (Arc::clone(&sum), Arc::clone(&noted));
    let handler = handler_fn(move |delivery: Delivery| {
        let (adds, notes) = (Arc::clone(&adds), Arc::clone(&notes));
        async move {
            let number: u64 = delivery.json()?;
            *adds.lock().unwrap() += number;
            notes.lock().unwrap().insert(number, number);
            Ok(())
        }
    });
    let report = orders.run_worker(orders.worker(handler).layer(chaos())).await;
    assert!(report.failed > 10, "{report:?}");
    assert_eq!(noted.lock().unwrap().values().sum::<u64>(), 1225);
    assert!(*sum.lock().unwrap() > 1225, "not idempotent, and found out");
}

/// A service is a handler, and `tower`'s own layers keep the result of a handler.
#[tokio::test(start_paused = true)]
async fn layers_and_services_of_tower_combine_with_ours() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    orders.send(["a", "b"]).await;
    let service = tower::service_fn(|delivery: Delivery| async move {
        if delivery.json::<String>()? == "b" { Err(HandlerError::reject("never")) } else { Ok(()) }
    });
    let worker = orders.worker(ServiceHandler::new(service));
    let worker = worker.layer(tower::util::MapErrLayer::new(Box::<dyn std::error::Error + Send + Sync>::from));
    let report = orders.run_worker(worker.layer(Timeout::new(SECOND))).await;
    assert_eq!((report.done, report.rejected, report.dead_lettered), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_layer_around_a_batch_handler_is_refused() {
    let server = TestServer::start().await;
    let orders = orders(&server).await;
    let handler = batch_handler_fn(|deliveries| async move { Ok(deliveries.iter().map(|_| Ok(())).collect()) });
    let error = orders.batch_worker(handler).layer(Timeout::new(SECOND)).build().unwrap_err();
    assert!(error.to_string().contains("one message at a time"), "{error}");
}
