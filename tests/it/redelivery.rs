//! The reasons of redeliveries, as the worker reports them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dms_server::{Operation, ServerConfig, faults::Fault};
use dms_worker::{
    queue::{NewQueue, QueueMode},
    testing::{TestGroup, TestServer},
    worker::{Delivery, Event, HandlerError, Observer, Origin, Redelivery, WorkerBuilder, WorkerMetrics, handler_fn},
};

/// The body and the reason of each redelivered message.
#[derive(Default)]
struct Reasons(Mutex<Vec<(String, &'static str)>>);

impl Observer for Reasons {
    fn observe(&self, origin: &Origin, event: &Event<'_>) {
        if let Event::Redelivered { delivery, reason, .. } = event {
            assert_eq!(origin, delivery.origin());
            self.0.lock().unwrap().push((delivery.json().unwrap(), reason.name()));
        }
    }
}

/// Runs a worker until its group is idle, and returns the reported reasons.
async fn reasons(group: &TestGroup, worker: WorkerBuilder) -> Vec<(String, &'static str)> {
    let reasons = Arc::<Reasons>::default();
    group.run_worker(worker.observer(reasons.clone())).await;
    let mut said = reasons.0.lock().unwrap().clone();
    said.sort();
    said
}

fn pairs(expected: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    expected.iter().map(|(body, reason)| ((*body).to_owned(), *reason)).collect()
}

/// A handler that does `fails` with the first delivery of each message whose body begins with its name.
fn once(name: &'static str, fails: fn() -> Result<(), HandlerError>) -> impl dms_worker::worker::Handler {
    handler_fn(move |delivery: Delivery| async move {
        let body: String = delivery.json()?;
        if body.starts_with(name) && delivery.attempt() == 1 && !delivery.attributes().contains("dms-deferred") {
            return fails();
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn a_failure_and_the_messages_after_it_have_their_reasons() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    group.send(["fine", "bad", "behind"]).await;
    let worker = group.worker(once("bad", || Err(HandlerError::retry("no"))));
    let metrics = WorkerMetrics::new();
    let worker = worker.observer(metrics.observer("w", "orders", "billing"));
    assert_eq!(reasons(&group, worker).await, pairs(&[("bad", "failed"), ("behind", "behind_failure")]));
    let text = metrics.encode();
    for reason in ["failed", "behind_failure"] {
        let line = format!(
            "dms_worker_redeliveries_total{{worker=\"w\",queue=\"orders\",group=\"billing\",reason=\"{reason}\"}} 1\n"
        );
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reject_a_panic_and_a_timeout_have_their_reasons() {
    for (fails, reason) in [
        ((|| Err(HandlerError::reject("never"))) as fn() -> Result<(), HandlerError>, "rejected"),
        (|| panic!("planted"), "panicked"),
    ] {
        let server = TestServer::start().await;
        let group = server.group(NewQueue::new("orders"), "billing").await;
        group.send(["bad"]).await;
        assert_eq!(reasons(&group, group.worker(once("bad", fails))).await, pairs(&[("bad", reason)]));
    }
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    group.send(["slow"]).await;
    let slow = handler_fn(|delivery: Delivery| async move {
        if delivery.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    assert_eq!(reasons(&group, group.worker(slow)).await, pairs(&[("slow", "timed_out")]));
}

#[tokio::test(start_paused = true)]
async fn a_deferral_is_known_from_its_copy_or_from_the_worker() {
    for mode in [QueueMode::Normal, QueueMode::Fifo] {
        let server = TestServer::start().await;
        let group = server.group(NewQueue::new("orders").mode(mode), "billing").await;
        group.send(["later"]).await;
        let worker = group.worker(once("later", || Err(HandlerError::defer(Duration::from_secs(5)))));
        assert_eq!(reasons(&group, worker).await, pairs(&[("later", "deferred")]), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_acknowledgement_is_a_reason() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "billing").await;
    group.send(["a", "b"]).await;
    // The service loses the lease: the acknowledgement is refused as one that comes too late.
    server.faults().next(Operation::Ack, Fault::ExpiredLease);
    let worker = group.worker(handler_fn(|| async { Ok(()) }));
    assert_eq!(reasons(&group, worker).await, pairs(&[("a", "late_ack"), ("b", "late_ack")]));
}

#[tokio::test(start_paused = true)]
async fn messages_left_by_another_worker_have_the_reason_unknown() {
    // A dropped worker hands its messages back if the server can take them back.
    let config = ServerConfig::default().extensions(false);
    let server = TestServer::with(config).await.unwrap();
    let group = server.group(NewQueue::new("orders"), "billing").await;
    group.send(["a"]).await;
    let gone = group.worker(handler_fn(std::future::pending)).build().unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(1), gone.run(std::future::pending())).await;
    let worker = group.worker(handler_fn(|| async { Ok(()) }));
    assert_eq!(reasons(&group, worker).await, pairs(&[("a", "unknown")]));
}

#[test]
fn each_reason_has_a_unique_name() {
    let mut names: Vec<_> = Redelivery::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Redelivery::ALL.len());
}
