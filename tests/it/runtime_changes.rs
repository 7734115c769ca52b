//! Workers and tasks that are added to and removed from a running runtime.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use dms_worker::{
    Worker,
    queue::NewQueue,
    runtime::{AddWorkerError, Runtime, RuntimeHandle, RuntimeReport},
    testing::{TestGroup, TestServer},
    worker::{Delivery, HandlerError, handler_fn},
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// How often the handler ran for each body.
type Runs = Arc<Mutex<BTreeMap<usize, usize>>>;

/// A worker whose handler takes this long.
fn worker(group: &TestGroup, name: &str, takes: Duration, runs: &Runs) -> Worker {
    let runs = Arc::clone(runs);
    let handler = handler_fn(move |delivery: Delivery| {
        let runs = Arc::clone(&runs);
        async move {
            sleep(takes).await;
            *runs.lock().unwrap().entry(delivery.json()?).or_default() += 1;
            Ok::<_, HandlerError>(())
        }
    });
    group.worker(handler).name(name).concurrency(8).build().unwrap()
}

fn start(runtime: Runtime) -> (RuntimeHandle, JoinHandle<RuntimeReport>) {
    (runtime.handle(), tokio::spawn(runtime.run(std::future::pending())))
}

/// Waits until the service has settled this many messages of the group.
async fn settled(group: &TestGroup, messages: u64) {
    while group.counts().await.acknowledged < messages {
        sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_added_worker_works_and_a_removed_one_drains_while_the_others_continue() {
    let server = TestServer::start().await;
    let (orders, mails) =
        (server.group(NewQueue::new("orders"), "g").await, server.group(NewQueue::new("mails"), "g").await);
    let (slow, quick) = (Runs::default(), Runs::default());
    let runtime = Runtime::builder().worker(worker(&orders, "orders", SECOND * 5, &slow)).build().unwrap();
    let (handle, running) = start(runtime);
    let added = handle.add_worker(worker(&mails, "mails", SECOND / 10, &quick)).unwrap();
    assert_eq!((added.name(), handle.workers().len()), ("mails", 2));
    orders.send([1]).await;
    sleep(SECOND).await;

    let begun = Instant::now();
    let removal = handle.remove_worker("orders");
    tokio::pin!(removal);
    assert!(futures_util::poll!(&mut removal).is_pending());
    mails.send([1, 2, 3]).await;
    settled(&mails, 3).await;
    assert!(begun.elapsed() < SECOND, "the other worker does not wait for the removal: {:?}", begun.elapsed());
    let end = removal.await.unwrap();
    let report = end.result.unwrap();
    assert_eq!((end.name.as_str(), report.done, report.acknowledged, report.drained), ("orders", 1, 1, true));
    assert_eq!(slow.lock().unwrap()[&1], 1, "its handler was not interrupted");

    assert!(handle.remove_worker("orders").await.is_none());
    handle.stop();
    let report = running.await.unwrap();
    let names: Vec<_> = report.workers.iter().map(|end| end.name.as_str()).collect();
    assert_eq!((names, report.drained), (vec!["mails"], true));
    let late = handle.add_worker(worker(&mails, "late", SECOND, &quick));
    assert!(matches!(late, Err(AddWorkerError::Stopped)), "{late:?}");
    assert!(!handle.add_task("late", |_| async {}));
    assert!(handle.remove_worker("mails").await.is_none(), "the report has it");
}

/// A worker is replaced a hundred times while messages arrive, next to one that is left alone.
#[tokio::test(start_paused = true)]
async fn a_hundred_replacements_under_load_lose_nothing_and_run_nothing_twice() {
    const MESSAGES: usize = 4_000;
    let server = TestServer::start().await;
    let (orders, mails) =
        (server.group(NewQueue::new("orders"), "g").await, server.group(NewQueue::new("mails"), "g").await);
    let (replaced, untouched) = (Runs::default(), Runs::default());
    let takes = SECOND / 4;
    let runtime = Runtime::builder()
        .worker(worker(&orders, "orders", takes, &replaced))
        .worker(worker(&mails, "mails", takes, &untouched))
        .max_in_flight(12)
        .build()
        .unwrap();
    let (handle, running) = start(runtime);
    orders.send(0..MESSAGES).await;
    mails.send(0..MESSAGES).await;
    let (mut done, mut acknowledged) = (0, 0);
    for _ in 0..100 {
        sleep(SECOND / 3).await;
        let report = handle.remove_worker("orders").await.unwrap().result.unwrap();
        assert!(report.drained && report.interrupted == 0 && report.redelivered == report.released, "{report:?}");
        done += report.done;
        acknowledged += report.acknowledged;
        handle.add_worker(worker(&orders, "orders", takes, &replaced)).unwrap();
        assert!(handle.in_flight() <= 12);
    }
    settled(&orders, MESSAGES as u64).await;
    settled(&mails, MESSAGES as u64).await;
    handle.stop();
    let report = running.await.unwrap();
    assert!(report.drained && handle.in_flight() == 0);
    for end in &report.workers {
        let counts = end.result.as_ref().unwrap();
        if end.name == "orders" {
            done += counts.done;
            acknowledged += counts.acknowledged;
        } else {
            assert_eq!((counts.done, counts.redelivered), (MESSAGES as u64, 0), "{counts:?}");
        }
    }
    assert_eq!((done, acknowledged), (MESSAGES as u64, MESSAGES as u64));
    for runs in [replaced, untouched] {
        let runs = runs.lock().unwrap();
        assert_eq!((runs.len(), runs.values().max()), (MESSAGES, Some(&1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_and_a_part_of_the_shared_limit_are_free_after_the_removal() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "g").await;
    let runs = Runs::default();
    let made = |name: &str| worker(&group, name, SECOND, &runs);
    let runtime = Runtime::builder().worker(made("a")).worker(made("b")).max_in_flight(2).build().unwrap();
    let (handle, running) = start(runtime);
    let refused = handle.add_worker(made("c")).unwrap_err().to_string();
    assert_eq!(refused, "max_in_flight is 2: at least 3 are needed, one for each worker");
    for _ in 0..100 {
        handle.remove_worker("a").await.unwrap().result.unwrap();
        handle.add_worker(made("a")).unwrap();
    }
    let refused = handle.add_worker(made("a")).unwrap_err().to_string();
    assert!(refused.contains(r#"name of a worker is "a" twice"#), "{refused}");
    handle.remove_worker("a").await.unwrap().result.unwrap();
    // The worker that is left may use the whole limit: two messages at a time, not one.
    let begun = Instant::now();
    group.send(0..20).await;
    settled(&group, 20).await;
    assert!(begun.elapsed() < SECOND * 13, "{:?}", begun.elapsed());
    handle.stop();
    assert!(running.await.unwrap().drained && handle.in_flight() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_nobody_waits_for_goes_on_and_its_end_is_in_the_report() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "g").await;
    let runs = Runs::default();
    let (handle, running) = start(Runtime::builder().worker(worker(&group, "orders", SECOND, &runs)).build().unwrap());
    group.send([7]).await;
    sleep(SECOND / 2).await;
    {
        let removal = handle.remove_worker("orders");
        tokio::pin!(removal);
        assert!(futures_util::poll!(&mut removal).is_pending());
    }
    settled(&group, 1).await;
    while !handle.workers().is_empty() {
        sleep(SECOND).await;
    }
    handle.add_worker(worker(&group, "orders", SECOND, &runs)).unwrap();
    handle.stop();
    let report = running.await.unwrap();
    let done: Vec<_> = report.workers.iter().map(|end| end.result.as_ref().unwrap().done).collect();
    assert_eq!((done.first(), report.drained), (Some(&1), true));
}

/// The policy is to stop all when a worker fails.
#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_while_it_is_removed_stops_no_others() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "g").await;
    let missing =
        || Worker::builder(server.client()).queue("missing").group("g").handler(handler_fn(|| async { Ok(()) }));
    let (handle, running) = start(Runtime::builder().build().unwrap());
    handle.add_worker(missing().build().unwrap()).unwrap();
    let end = handle.remove_worker("missing").await.unwrap();
    assert_eq!(end.name, "missing");
    group.send([1]).await;
    let runs = Runs::default();
    handle.add_worker(worker(&group, "orders", SECOND, &runs)).unwrap();
    settled(&group, 1).await;
    handle.add_worker(missing().build().unwrap()).unwrap();
    let report = running.await.unwrap();
    assert_eq!(report.failure().map(|(name, _)| name), Some("missing"), "without a removal the policy applies");
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_can_be_changed_and_an_added_task_is_waited_for() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "g").await;
    let runs = Runs::default();
    let runtime = Runtime::builder().worker(worker(&group, "orders", SECOND * 20, &runs)).shutdown_grace(SECOND);
    let (handle, running) = start(runtime.build().unwrap());
    handle.set_shutdown_grace(SECOND * 22);
    let (ended, end) = oneshot::channel();
    assert!(handle.add_task("intake", |runtime| async move {
        runtime.stopped().await;
        sleep(SECOND * 2).await;
        let _ = ended.send(());
    }));
    group.send([1]).await;
    sleep(SECOND).await;
    handle.stop();
    let report = running.await.unwrap();
    assert_eq!(end.await, Ok(()));
    assert_eq!((report.drained, runs.lock().unwrap().len()), (true, 1));
}
