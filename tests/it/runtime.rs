//! Several workers and producers in one process: shared limits, one shutdown, one report.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use dms_worker::{
    Producer, Worker,
    message::Message,
    queue::NewQueue,
    runtime::{OnWorkerFailure, Runtime, RuntimeReport, Sharing},
    testing::{TestGroup, TestServer},
    worker::{Delivery, HandlerError, handler_fn},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// How many messages of each worker are in its handler.
#[derive(Clone, Default)]
struct Busy(Arc<[AtomicUsize; 3]>);

impl Busy {
    fn all(&self) -> usize {
        self.0.iter().map(|count| count.load(SeqCst)).sum()
    }
}

/// Workers of three queues whose handlers take 100 ms.
struct Three {
    server: TestServer,
    groups: Vec<TestGroup>,
    busy: Busy,
    /// The most that was ever in flight at a time.
    most: Arc<AtomicUsize>,
}

impl Three {
    async fn new(messages: usize) -> Self {
        let server = TestServer::start().await;
        let mut groups = Vec::new();
        for queue in ["a", "b", "c"] {
            let group = server.group(NewQueue::new(queue), "workers").await;
            group.send(0..messages).await;
            groups.push(group);
        }
        Self { server, groups, busy: Busy::default(), most: Arc::default() }
    }

    fn worker(&self, place: usize, weight: u32) -> Worker {
        let (busy, most) = (self.busy.clone(), self.most.clone());
        let handler = handler_fn(move || {
            let (busy, most) = (busy.clone(), most.clone());
            async move {
                busy.0[place].fetch_add(1, SeqCst);
                most.fetch_max(busy.all(), SeqCst);
                sleep(SECOND / 10).await;
                busy.0[place].fetch_sub(1, SeqCst);
                Ok(())
            }
        });
        let name = ["a", "b", "c"][place];
        self.groups[place].worker(handler).name(name).weight(weight).concurrency(100).build().unwrap()
    }
}

/// Runs a runtime, and ends it when `until` completes.
async fn run_until(runtime: Runtime, until: impl Future<Output = ()>) -> RuntimeReport {
    let (stop, stopped) = oneshot::channel::<()>();
    let watch = async {
        until.await;
        let _ = stop.send(());
    };
    tokio::join!(runtime.run(async { drop(stopped.await) }), watch).0
}

#[tokio::test(start_paused = true)]
async fn a_scarce_limit_is_shared_by_weight_and_never_exceeded() {
    let three = Three::new(2000).await;
    let runtime = Runtime::builder()
        .worker(three.worker(0, 3))
        .worker(three.worker(1, 2))
        .worker(three.worker(2, 1))
        .max_in_flight(60)
        .build()
        .unwrap();
    let handle = runtime.handle();
    let mut held = [0.0; 3];
    let report = run_until(runtime, async {
        sleep(SECOND).await;
        for _ in 0..200 {
            sleep(SECOND / 90).await;
            held.iter_mut().zip(three.busy.0.iter()).for_each(|(sum, busy)| *sum += busy.load(SeqCst) as f64 / 200.0);
            assert!(handle.in_flight() <= 60);
        }
    })
    .await;
    assert!(three.most.load(SeqCst) <= 60, "{} at a time", three.most.load(SeqCst));
    assert!(held.iter().sum::<f64>() > 45.0, "the ceiling is used: {held:?}");
    for (held, weight) in held.iter().zip([3.0, 2.0, 1.0]) {
        let fair = three.most.load(SeqCst) as f64 * weight / 6.0;
        assert!((held / fair - 1.0).abs() < 0.35, "{held:?} instead of about {fair}");
    }
    assert!(report.drained && report.failure().is_none());
    assert_eq!((handle.in_flight(), handle.max_in_flight()), (0, Some(60)), "nothing leaks");
}

#[tokio::test(start_paused = true)]
async fn a_shared_limit_is_set_changed_and_removed_while_workers_run() {
    let three = Three::new(3000).await;
    let runtime = Runtime::builder().worker(three.worker(0, 1)).worker(three.worker(1, 1)).worker(three.worker(2, 1));
    let runtime = runtime.build().unwrap();
    let handle = runtime.handle();
    // The most in flight within a second that begins when messages from before have been handled.
    let most = async || {
        sleep(SECOND / 2).await;
        three.most.store(0, SeqCst);
        sleep(SECOND).await;
        three.most.load(SeqCst)
    };
    let report = run_until(runtime, async {
        assert!(most().await > 100, "there is no limit");
        let refused = handle.set_limits(2, None, Sharing::Weighted).unwrap_err().to_string();
        assert_eq!(refused, "max_in_flight is 2: at least 3 are needed, one for each worker");
        assert_eq!(handle.max_in_flight(), None);
        for (limit, least) in [(30, 20), (60, 40), (12, 8)] {
            handle.set_limits(limit, None, Sharing::Weighted).unwrap();
            let most = most().await;
            assert!((least..=limit).contains(&most), "{most} of {limit}");
            assert_eq!(handle.max_in_flight(), Some(limit));
        }
        handle.set_limits(None, None, Sharing::Weighted).unwrap();
        assert!(most().await > 100, "the limit is gone");
        assert_eq!(handle.max_in_flight(), None);
    })
    .await;
    assert!(report.drained && report.failure().is_none());
    assert_eq!(handle.in_flight(), 0, "nothing leaks");
}

#[tokio::test(start_paused = true)]
async fn idle_workers_leave_the_shared_limit_to_a_busy_one() {
    let three = Three::new(0).await;
    three.groups[0].send(0..1000).await;
    let runtime = Runtime::builder()
        .worker(three.worker(0, 1))
        .worker(three.worker(1, 100))
        .worker(three.worker(2, 100))
        .max_in_flight(30)
        .build()
        .unwrap();
    let mut most = 0;
    let begun = Instant::now();
    run_until(runtime, async {
        while three.groups[0].counts().await.acknowledged < 1000 {
            sleep(SECOND / 20).await;
            if begun.elapsed() > SECOND * 3 {
                most = most.max(three.busy.0[0].load(SeqCst));
            }
        }
    })
    .await;
    assert!(most >= 25, "all but what the idle ones are sure of: {most}");
}

#[tokio::test(start_paused = true)]
async fn no_worker_starves_with_strict_priorities() {
    let three = Three::new(600).await;
    let runtime = Runtime::builder()
        .worker(three.worker(0, 9))
        .worker(three.worker(1, 1))
        .worker(three.worker(2, 1))
        .max_in_flight(12)
        .sharing(Sharing::Strict)
        .build()
        .unwrap();
    run_until(runtime, sleep(SECOND * 4)).await;
    let mut done = Vec::new();
    for group in &three.groups {
        done.push(group.counts().await.acknowledged);
    }
    assert!(done[0] > 5 * done[1] && done[1] >= 15 && done[2] >= 15, "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn producers_are_closed_after_workers_and_tasks() {
    let server = TestServer::start().await;
    let orders = server.group(NewQueue::new("orders"), "workers").await;
    let audit = server.group(NewQueue::new("audit"), "readers").await;
    orders.send(["slow"]).await;
    // Lingers longer than the whole test, so only the shutdown sends its messages.
    let linger = Producer::builder(server.client(), audit.queue_id().clone()).linger(SECOND * 60);
    let producer = linger.build().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (note, used) = (lines.clone(), producer.clone());
    let handler = handler_fn(move |delivery: Delivery| {
        let (note, used) = (note.clone(), used.clone());
        async move {
            sleep(SECOND * 5).await;
            assert!(delivery.is_shutting_down());
            let _receipt = used.enqueue(Message::text("by the handler")).await.map_err(HandlerError::retry)?;
            note.lock().unwrap().push("handler");
            Ok(())
        }
    });
    let (note, used) = (lines.clone(), producer.clone());
    let runtime = Runtime::builder()
        .worker(orders.worker(handler).build().unwrap())
        .producer("audit", producer)
        .task("intake", move |runtime| async move {
            runtime.stopped().await;
            note.lock().unwrap().push("stopping");
            sleep(SECOND * 8).await;
            let _receipt = used.enqueue(Message::text("by the task")).await;
            note.lock().unwrap().push("task");
        })
        .build()
        .unwrap();
    let report = run_until(runtime, sleep(SECOND)).await;
    assert_eq!(*lines.lock().unwrap(), ["stopping", "handler", "task"]);
    assert!(report.drained);
    assert_eq!(report.workers[0].result.as_ref().unwrap().acknowledged, 1);
    assert_eq!((report.producers[0].name.as_str(), report.producers[0].report.sent), ("audit", 2));
    assert_eq!(audit.waiting::<String>().await, ["by the handler", "by the task"]);
}

/// A worker of a missing queue, next to one that works.
async fn one_fails(policy: OnWorkerFailure) -> (RuntimeReport, Duration) {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "workers").await;
    let fine = handler_fn(|| async { Ok(()) });
    let missing =
        Worker::builder(server.client()).queue("missing").group("workers").handler(handler_fn(|| async { Ok(()) }));
    let runtime = Runtime::builder()
        .worker(group.worker(fine).name("orders").build().unwrap())
        .worker(missing.build().unwrap())
        .on_worker_failure(policy)
        .build()
        .unwrap();
    let begun = Instant::now();
    (runtime.run(sleep(SECOND * 60)).await, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_fails_permanently_ends_the_others_unless_configured_otherwise() {
    let (report, took) = one_fails(OnWorkerFailure::StopAll).await;
    let (name, error) = report.failure().unwrap();
    assert!(name == "missing" && error.to_string().contains("missing"), "{error}");
    assert!(took < SECOND * 5, "{took:?}");
    assert!(report.workers[0].result.is_ok() && !report.drained);

    let (report, took) = one_fails(OnWorkerFailure::Continue).await;
    assert_eq!(report.failure().map(|(name, _)| name), Some("missing"));
    assert!(report.workers[0].result.as_ref().is_ok_and(|counts| counts.drained) && took >= SECOND * 60);
}

#[tokio::test(start_paused = true)]
async fn stop_now_waits_for_no_handler() {
    let server = TestServer::start().await;
    let group = server.group(NewQueue::new("orders"), "workers").await;
    group.send(["slow"]).await;
    let handler = handler_fn(|| async {
        sleep(SECOND * 20).await;
        Ok(())
    });
    let runtime = Runtime::builder()
        .worker(group.worker(handler).build().unwrap())
        .task("stubborn", |_| std::future::pending())
        .build()
        .unwrap();
    let handle = runtime.handle();
    let running = tokio::spawn(runtime.run(std::future::pending()));
    sleep(SECOND).await;
    handle.stop();
    handle.stop();
    sleep(SECOND).await;
    let begun = Instant::now();
    handle.stop_now();
    let report = running.await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    let counts = report.workers[0].result.as_ref().unwrap();
    assert_eq!((counts.interrupted, counts.drained, report.drained), (1, false, false));
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_together_are_refused_by_name() {
    let three = Three::new(0).await;
    let with = |messages: Option<usize>, bytes: Option<usize>| {
        let workers = Runtime::builder().worker(three.worker(0, 1)).worker(three.worker(1, 1));
        workers.max_in_flight(messages).max_in_flight_bytes(bytes).build()
    };
    assert!(with(Some(2), Some(1 << 20)).is_ok());
    let error = with(Some(1), None).unwrap_err().to_string();
    assert_eq!(error, "max_in_flight is 1: at least 2 are needed, one for each worker");
    let error = with(None, Some(1_000_000)).unwrap_err().to_string();
    assert_eq!(error, "max_in_flight_bytes is 1000000: at least 1048576 are needed, one poll for each worker");
    let twice = Runtime::builder().worker(three.worker(0, 1)).worker(three.worker(0, 1)).build();
    let error = twice.unwrap_err().to_string();
    assert!(error.contains(r#"name of a worker is "a" twice"#), "{error}");
    drop(three.server);
}
