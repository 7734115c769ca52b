//! The cost of a few poison messages: none for other messages with several replicas, and little throughput.

use async_trait::async_trait;
use bytes::Bytes;
use dms_worker::{
    transport::{Transport, TransportError},
    worker::{Delivery, OnFailure, OnReject, Republish},
};
use http::{Request, Response};

use super::*;

/// A network on which a round trip takes ten milliseconds.
#[derive(Debug)]
struct Far(InProcess);

#[async_trait]
impl Transport for Far {
    async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, TransportError> {
        tokio::time::sleep(SECOND / 200).await;
        let answer = self.0.send(request, timeout).await;
        tokio::time::sleep(SECOND / 200).await;
        answer
    }
}

/// Invariant 4 with three replicas and more than four allowed failures: exactly the poison messages become dead letters, also when
/// they are long in failing, so that one replica has them while another has forgotten them.
async fn replicas_spare_the_neighbours(queue: NewQueue) {
    let world = World::new(queue.dead_letters_after(5), FailureCounting::Batch).await;
    world.send(0..300).await;
    let replica = || {
        let handler = handler_fn(|delivery: Delivery| async move {
            if one_in_fifty(delivery.json()?) {
                tokio::time::sleep(SECOND * 5).await;
                return Err(HandlerError::retry("poison"));
            }
            tokio::time::sleep(SECOND / 100).await;
            Ok(())
        });
        start(Worker::builder(world.client.clone()).queue("orders").group("billing").handler(handler))
    };
    let replicas = [replica(), replica(), replica()];
    for more in 3..12 {
        tokio::time::sleep(SECOND * 10).await;
        world.send(more * 100..(more + 1) * 100).await;
    }
    tokio::time::sleep(SECOND * 1_200).await;
    for (handle, run) in replicas {
        handle.stop();
        run.await.unwrap();
    }
    assert_eq!(world.counts().await, (1_200 - 24, 0, 24));
}

#[tokio::test(start_paused = true)]
async fn replicas_spare_the_neighbours_of_poison_in_a_normal_queue() {
    replicas_spare_the_neighbours(NewQueue::new("orders")).await;
}

#[tokio::test(start_paused = true)]
async fn replicas_spare_the_neighbours_of_poison_in_a_fifo_queue() {
    replicas_spare_the_neighbours(NewQueue::new("orders").mode(QueueMode::Fifo)).await;
}

/// Republished messages affect no others: with a single allowed failure no neighbour becomes a dead letter, and the poison is parked.
#[tokio::test(start_paused = true)]
async fn republished_poison_affects_no_neighbour_with_any_max_consume_count() {
    let world = World::new(NewQueue::new("orders").dead_letters_after(1), FailureCounting::Batch).await;
    let parked = world.client.create_queue(NewQueue::new("parked")).await.unwrap().id;
    world.client.create_groups(&parked, &["people"]).await.unwrap();
    world.send(0..500).await;
    let then = OnReject::Park("parked".to_owned());
    let republish = Republish::new().max_attempts(3).then(then);
    let worker = world.worker(SECOND / 200, one_in_fifty).on_failure(OnFailure::Republish(republish));
    let (handle, run) = start(worker);
    tokio::time::sleep(SECOND * 60).await;
    handle.stop();
    run.await.unwrap();
    let (_, available, dead) = world.counts().await;
    assert_eq!((available, dead), (0, 0));
    assert_eq!(world.client.find_group(&parked, "people").await.unwrap().available_messages, 10);
    assert!(world.runs().into_iter().all(|(number, runs)| runs == if one_in_fifty(number) { 3 } else { 1 }));
}

/// One poison message in a hundred leaves four tenths of the throughput where the wire is the bound: round trips of ten milliseconds,
/// a handler that takes no time.
#[tokio::test(start_paused = true)]
async fn a_little_poison_leaves_four_tenths_of_the_throughput_on_a_slow_network() {
    let clean = time_for_most_afar(|_| false).await;
    let poisoned = time_for_most_afar(|number| number % 100 == 37).await;
    let ratio = clean.as_secs_f64() / poisoned.as_secs_f64();
    assert!(ratio >= 0.4, "{clean:?} without poison, {poisoned:?} with: {ratio:.2}");
}

async fn time_for_most_afar(fails: fn(u64) -> bool) -> Duration {
    let mut world = World::new(orders(), FailureCounting::Batch).await;
    world.send(0..4_000).await;
    let far = Arc::new(Far(InProcess::new(world.server.service())));
    let far = Client::builder("http://in.process", "local").transport(far).build().unwrap();
    let near = std::mem::replace(&mut world.client, far);
    let began = tokio::time::Instant::now();
    let (handle, run) = start(world.worker(Duration::ZERO, fails));
    world.client = near;
    while world.counts().await.0 < 3_600 {
        tokio::time::sleep(SECOND / 100).await;
    }
    let took = began.elapsed();
    handle.stop();
    run.await.unwrap();
    took
}
