//! Workers against the embedded server, in one process, under the paused clock.

mod lost_queue;
mod poison;
mod refused;
mod rejects;
mod stops;
mod unreadable;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use dms_server::{
    Server, ServerConfig,
    broker::embedded::{EmbeddedBroker, EmbeddedConfig, FailureCounting},
    clock::Clock,
};
use dms_worker::{
    Client,
    message::Message,
    queue::{NewQueue, QueueId, QueueMode, TagFilter},
    transport::InProcess,
    worker::{
        Delivery, HandlerError, MaxMessages, Ordering, Worker, WorkerBuilder, WorkerHandle, WorkerReport, handler_fn,
    },
};
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// A server in this process with one queue `orders` and its group `billing`.
struct World {
    server: Server,
    client: Client,
    queue: QueueId,
    /// The arguments of the calls of handlers, in order.
    seen: Arc<Mutex<Vec<u64>>>,
}

impl World {
    async fn new(queue: NewQueue, counting: FailureCounting) -> Self {
        Self::with(queue, counting, true).await
    }

    /// As `new`, with or without the server's extensions.
    async fn with(queue: NewQueue, counting: FailureCounting, extensions: bool) -> Self {
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let config = EmbeddedConfig::default().failure_counting(counting);
        let broker = Arc::new(EmbeddedBroker::in_memory(config, clock).await);
        let config = ServerConfig::default().clock(clock).extensions(extensions);
        let server = Server::with_broker(config, broker).await.unwrap();
        let transport = Arc::new(InProcess::new(server.service()));
        let client = Client::builder("http://in.process", "local").transport(transport).build().unwrap();
        let queue = client.create_queue(queue).await.unwrap().id;
        client.create_groups(&queue, &["billing"]).await.unwrap();
        Self { server, client, queue, seen: Arc::default() }
    }

    async fn send(&self, numbers: std::ops::Range<u64>) {
        let messages: Vec<_> = numbers.map(|number| Message::json(&number).unwrap()).collect();
        for batch in messages.chunks(10) {
            for sent in self.client.send(&self.queue, batch).await.unwrap() {
                sent.unwrap();
            }
        }
    }

    /// A worker whose handler records each number, takes `takes`, and fails the numbers that `fails` selects.
    fn worker(&self, takes: Duration, fails: fn(u64) -> bool) -> WorkerBuilder {
        let seen = self.seen.clone();
        let handler = handler_fn(move |delivery: Delivery| {
            let seen = seen.clone();
            async move {
                let number: u64 = delivery.json()?;
                tokio::time::sleep(takes).await;
                seen.lock().unwrap().push(number);
                if fails(number) { Err(HandlerError::retry("poison")) } else { Ok(()) }
            }
        });
        Worker::builder(self.client.clone()).queue("orders").group("billing").handler(handler)
    }

    async fn counts(&self) -> (u64, u64, u64) {
        let group = self.client.find_group(&self.queue, "billing").await.unwrap();
        (group.consumed_messages, group.available_messages, group.available_dead_letters.unwrap())
    }

    fn runs(&self) -> BTreeMap<u64, usize> {
        let mut runs = BTreeMap::new();
        for number in self.seen.lock().unwrap().iter() {
            *runs.entry(*number).or_default() += 1;
        }
        runs
    }
}

fn start(worker: WorkerBuilder) -> (WorkerHandle, JoinHandle<WorkerReport>) {
    let worker = worker.build().unwrap();
    let handle = worker.handle();
    (handle, tokio::spawn(async move { worker.run(std::future::pending()).await.unwrap() }))
}

fn orders() -> NewQueue {
    NewQueue::new("orders").dead_letters_after(3)
}

fn one_in_fifty(number: u64) -> bool {
    number % 50 == 7
}

#[tokio::test(start_paused = true)]
async fn each_message_of_a_backlog_is_handled_once() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    world.send(0..1_000).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    tokio::time::sleep(SECOND * 30).await;
    handle.stop();
    let report = run.await.unwrap();
    assert!(report.drained);
    assert_eq!((report.done, report.acknowledged, report.redelivered), (1_000, 1_000, 0));
    assert_eq!(world.counts().await, (1_000, 0, 0));
    assert!(world.runs().values().all(|&runs| runs == 1));
}

/// Invariant 4, under the strict reading of the service's counting: exactly the poison messages become dead letters.
async fn only_poison_becomes_a_dead_letter(queue: NewQueue) {
    let world = World::new(queue, FailureCounting::Batch).await;
    world.send(0..500).await;
    let (handle, run) = start(world.worker(SECOND / 200, one_in_fifty));
    tokio::time::sleep(SECOND * 300).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.counts().await, (490, 0, 10));
    let runs = world.runs();
    assert!((0..500).filter(|&n| one_in_fifty(n)).all(|n| runs[&n] == 3), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn only_poison_becomes_a_dead_letter_in_a_normal_queue() {
    only_poison_becomes_a_dead_letter(orders()).await;
}

#[tokio::test(start_paused = true)]
async fn only_poison_becomes_a_dead_letter_in_a_fifo_queue() {
    only_poison_becomes_a_dead_letter(orders().mode(QueueMode::Fifo)).await;
}

/// A FIFO queue is handled strictly in order, whatever the worker's concurrency.
#[tokio::test(start_paused = true)]
async fn a_fifo_queue_is_handled_in_order() {
    let world = World::new(orders().mode(QueueMode::Fifo), FailureCounting::Culprit).await;
    world.send(0..200).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    tokio::time::sleep(SECOND * 60).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(*world.seen.lock().unwrap(), (0..200).collect::<Vec<_>>());
}

/// The queue may be created after the worker starts.
#[tokio::test(start_paused = true)]
async fn a_queue_that_does_not_exist_is_an_error_that_names_it() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    let worker =
        Worker::builder(world.client.clone()).queue("ordres").group("billing").handler(handler_fn(|| async { Ok(()) }));
    let error = worker.build().unwrap().run(std::future::pending()).await.unwrap_err();
    assert!(error.client_error().unwrap().is_not_found());
    assert!(error.to_string().contains("ordres"), "{error}");
}

/// A handler that takes longer than its lease is stopped; its message becomes a dead letter, its neighbours do not.
#[tokio::test(start_paused = true)]
async fn a_hanging_handler_affects_only_its_own_message() {
    let world = World::new(orders(), FailureCounting::Batch).await;
    world.send(0..10).await;
    let handler = handler_fn(|delivery: Delivery| async move {
        if delivery.json::<u64>()? == 3 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let worker =
        Worker::builder(world.client.clone()).queue("orders").group("billing").handler(handler).ack_wait(SECOND * 15);
    let (handle, run) = start(worker);
    tokio::time::sleep(SECOND * 120).await;
    handle.stop();
    assert_eq!(run.await.unwrap().timed_out, 3);
    assert_eq!(world.counts().await, (9, 0, 1));
}

/// Dead-letter workers: the same runtime on the other stream.
#[tokio::test(start_paused = true)]
async fn dead_letters_can_be_consumed_by_a_worker() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    world.send(0..50).await;
    let (handle, run) = start(world.worker(Duration::ZERO, one_in_fifty));
    tokio::time::sleep(SECOND * 20).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.counts().await, (49, 0, 1));
    let (handle, run) = start(world.worker(Duration::ZERO, |_| false).dead_letters());
    tokio::time::sleep(SECOND * 20).await;
    handle.stop();
    assert_eq!(run.await.unwrap().done, 1);
    assert_eq!(world.counts().await, (49, 0, 0));
}

/// Labels: the worker receives matching messages only.
#[tokio::test(start_paused = true)]
async fn a_worker_with_labels_gets_matching_messages_only() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    for number in 0..20u64 {
        let message = Message::json(&number).unwrap().tag(if number % 2 == 0 { "even" } else { "odd" });
        world.client.send(&world.queue, &[message]).await.unwrap();
    }
    let filter = TagFilter { tags: vec!["odd".into()], ..TagFilter::default() };
    let worker = world.worker(Duration::ZERO, |_| false).tags(filter).max_messages(MaxMessages::Fixed(3));
    let (handle, run) = start(worker);
    tokio::time::sleep(SECOND * 20).await;
    handle.stop();
    assert_eq!(run.await.unwrap().done, 10);
    assert!(world.runs().keys().all(|number| number % 2 == 1));
}

/// Key queues keep the order of a key on a NORMAL queue, also after failures.
#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_through_failures() {
    let world = World::new(NewQueue::new("orders"), FailureCounting::Culprit).await;
    for number in 0..60u64 {
        let message = Message::json(&number).unwrap().attribute("customer", number % 3);
        world.client.send(&world.queue, &[message]).await.unwrap();
    }
    let done = Arc::new(Mutex::new(Vec::new()));
    let tried = Arc::new(Mutex::new(BTreeMap::<u64, u32>::new()));
    let (seen, tries) = (done.clone(), tried.clone());
    let handler = handler_fn(move |delivery: Delivery| {
        let (seen, tries) = (seen.clone(), tries.clone());
        async move {
            let number: u64 = delivery.json()?;
            tokio::time::sleep(SECOND / 10).await;
            let tried = { *tries.lock().unwrap().entry(number).and_modify(|n| *n += 1).or_insert(1) };
            if number % 10 == 4 && tried < 3 {
                return Err(HandlerError::retry("not yet"));
            }
            seen.lock().unwrap().push(number);
            Ok(())
        }
    });
    let worker = Worker::builder(world.client.clone())
        .queue("orders")
        .group("billing")
        .handler(handler)
        .ordering(Ordering::by_attribute("customer"));
    let (handle, run) = start(worker);
    tokio::time::sleep(SECOND * 300).await;
    handle.stop();
    run.await.unwrap();
    assert_eq!(world.counts().await, (60, 0, 0));
    for customer in 0..3 {
        let mut order: Vec<u64> = done.lock().unwrap().iter().copied().filter(|n| n % 3 == customer).collect();
        let mut first_runs = Vec::new();
        order.retain(|n| {
            if first_runs.contains(n) {
                false
            } else {
                first_runs.push(*n);
                true
            }
        });
        assert!(first_runs.is_sorted(), "customer {customer}: {first_runs:?}");
    }
}

/// How long it takes, by the paused clock, until nine tenths of 8,000 messages are settled: the last ones wait for the retries of
/// the last poison message, whatever their number.
async fn time_for_most(fails: fn(u64) -> bool) -> Duration {
    let world = World::new(orders(), FailureCounting::Batch).await;
    world.send(0..8_000).await;
    let began = tokio::time::Instant::now();
    let (handle, run) = start(world.worker(SECOND / 200, fails));
    while world.counts().await.0 < 7_200 {
        tokio::time::sleep(SECOND / 100).await;
    }
    let took = began.elapsed();
    handle.stop();
    run.await.unwrap();
    took
}

/// One poison message in a hundred leaves nine tenths of the throughput where a handler of 5 ms is the bound.
#[tokio::test(start_paused = true)]
async fn a_little_poison_leaves_nine_tenths_of_the_throughput() {
    let clean = time_for_most(|_| false).await;
    let poisoned = time_for_most(|number| number % 100 == 37).await;
    let ratio = clean.as_secs_f64() / poisoned.as_secs_f64();
    assert!(ratio >= 0.9, "{clean:?} without poison, {poisoned:?} with: {ratio:.2}");
}

/// Work that was finished after a failure is redelivered and acknowledged without running again.
#[tokio::test(start_paused = true)]
async fn finished_work_after_a_failure_is_not_run_again() {
    let world = World::new(orders(), FailureCounting::Batch).await;
    world.send(0..500).await;
    let (handle, run) = start(world.worker(SECOND / 200, one_in_fifty));
    tokio::time::sleep(SECOND * 60).await;
    handle.stop();
    let report = run.await.unwrap();
    assert_eq!(world.counts().await, (490, 0, 10));
    let again: Vec<_> = world.runs().into_iter().filter(|(number, runs)| !one_in_fifty(*number) && *runs > 1).collect();
    assert_eq!(again, [], "innocent messages that ran twice");
    assert!(report.remembered > 0, "{report:?}");
}
