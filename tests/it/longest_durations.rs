//! The longest duration is either refused or means "no limit", and never panics.

use std::time::Duration;

use dms_worker::{
    layers::{CircuitBreaker, CircuitState, Deduplicate, MemoryStore, Timeout},
    message::Message,
    queue::NewQueue,
    retry::RetryPolicy,
    runtime::Runtime,
    testing::TestServer,
    worker::{Delivery, DeliveryBuilder, HandlerError, Rate, handler_fn},
};
use tower::Layer;

const MAX: Duration = Duration::MAX;

#[test]
fn settings_with_a_limit_refuse_the_longest_duration() {
    assert!(RetryPolicy::try_new(MAX, MAX, 2.0, 0.5).is_err());
    assert!(RetryPolicy::try_new(Duration::from_secs(1), MAX, 2.0, 0.5).is_err());
    assert!(Rate::try_new(1, MAX).is_err());
    assert!(Rate::try_new(u32::MAX, MAX).is_err());
}

/// A worker, a runtime and layers with the longest durations.
#[tokio::test(start_paused = true)]
async fn a_runtime_with_the_longest_grace_stops() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "billing").await;
    orders.send_messages([Message::text("a").attribute("order_id", 1)]).await;
    let handler = handler_fn(|_: Delivery| async { Ok::<_, HandlerError>(()) });
    let refused = orders.worker(handler_fn(|_: Delivery| async { Ok::<_, HandlerError>(()) })).poll_wait(MAX).build();
    assert!(refused.is_err());
    let refused = orders.worker(handler_fn(|_: Delivery| async { Ok::<_, HandlerError>(()) })).ack_wait(MAX).build();
    assert!(refused.is_err());
    let deduplicate = Deduplicate::by_attribute("order_id", MemoryStore::new(10), MAX);
    let worker = orders.worker(handler).layer(Timeout::new(MAX)).layer(deduplicate).shutdown_grace(MAX);
    let runtime = Runtime::builder().worker(worker.build().unwrap()).shutdown_grace(MAX).build().unwrap();
    let report = runtime.run(tokio::time::sleep(Duration::from_secs(60))).await;
    assert!(report.drained, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_circuit_and_a_delivery_accept_the_longest_duration() {
    let breaker = CircuitBreaker::new(1, MAX);
    let failing = handler_fn(|_: Delivery| async { Err(HandlerError::defer(MAX)) });
    let _ = DeliveryBuilder::json(&1).unwrap().lease(MAX).build().remaining();
    let service = breaker.layer(dms_worker::worker::HandlerService::new(handler_fn(|_: Delivery| async {
        Err(HandlerError::retry("no"))
    })));
    let handler = dms_worker::worker::ServiceHandler::new(service);
    let delivery = DeliveryBuilder::json(&1).unwrap().lease(MAX).build();
    assert!(dms_worker::worker::Handler::handle(&handler, delivery).await.is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
    let delivery = DeliveryBuilder::json(&1).unwrap().build();
    assert!(dms_worker::worker::Handler::handle(&failing, delivery).await.is_err());
}
