//! A queue or a group that is deleted while a worker consumes it, and created again under the same name.

use std::time::Duration;

use dms_worker::{
    message::Message,
    queue::NewQueue,
    worker::{OnReject, WorkerHandle},
};
use tokio::time::{Instant, sleep, timeout};

use super::{FailureCounting, SECOND, World, orders, start};

/// Until a worker cannot go on.
async fn until_failed(handle: &WorkerHandle) -> String {
    let wait = async {
        loop {
            match handle.failure() {
                Some(failure) => return failure,
                None => sleep(SECOND / 10).await,
            }
        }
    };
    timeout(SECOND * 40, wait).await.expect("it does not notice")
}

/// Until the handler has had `count` messages.
async fn until_seen(world: &World, count: usize, within: Duration) {
    let wait = async {
        while world.seen.lock().unwrap().len() < count {
            sleep(SECOND / 10).await;
        }
    };
    let seen = || world.seen.lock().unwrap().len();
    assert!(timeout(within, wait).await.is_ok(), "only {} of {count} within {within:?}", seen());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_created_again_is_found_again() {
    let mut world = World::new(orders(), FailureCounting::Culprit).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    for round in 0..3 {
        world.send(0..5).await;
        until_seen(&world, 5 * (round + 1), SECOND).await;
        world.client.delete_queue(&world.queue).await.unwrap();
        world.queue = world.client.create_queue(orders()).await.unwrap().id;
        world.client.create_groups(&world.queue, &["billing"]).await.unwrap();
    }
    world.send(0..5).await;
    until_seen(&world, 20, SECOND).await;
    assert_eq!(handle.failure(), None);
    handle.stop();
    assert!(run.await.unwrap().drained);
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_waited_for() {
    let mut world = World::new(orders(), FailureCounting::Culprit).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    world.send(0..1).await;
    until_seen(&world, 1, SECOND * 5).await;
    world.client.delete_queue(&world.queue).await.unwrap();
    let failure = until_failed(&handle).await;
    assert!(failure.contains("there is no queue \"orders\""), "{failure}");
    sleep(Duration::from_secs(3600)).await;
    assert!(!run.is_finished());
    world.queue = world.client.create_queue(orders()).await.unwrap().id;
    world.client.create_groups(&world.queue, &["billing"]).await.unwrap();
    world.send(1..2).await;
    let began = Instant::now();
    until_seen(&world, 2, SECOND * 11).await;
    assert!(began.elapsed() <= SECOND * 11);
    assert_eq!(handle.failure(), None);
    handle.stop();
    assert!(run.await.unwrap().drained);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_created_again_is_found_again() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    world.send(0..1).await;
    until_seen(&world, 1, SECOND * 5).await;
    let group = world.client.find_group(&world.queue, "billing").await.unwrap().id;
    world.client.delete_group(&world.queue, &group).await.unwrap();
    assert!(until_failed(&handle).await.contains("group"));
    world.client.create_groups(&world.queue, &["billing"]).await.unwrap();
    let began = Instant::now();
    // The new group has the message that the old one had.
    until_seen(&world, 2, SECOND * 10).await;
    assert!(began.elapsed() < SECOND * 10);
    handle.stop();
    assert!(run.await.unwrap().drained);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_for_its_queue_stops_at_once() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false));
    world.send(0..1).await;
    until_seen(&world, 1, SECOND * 5).await;
    world.client.delete_queue(&world.queue).await.unwrap();
    until_failed(&handle).await;
    handle.stop();
    let report = timeout(SECOND, run).await.expect("it waits on").unwrap();
    assert_eq!((report.done, report.drained), (1, true));
}

#[tokio::test(start_paused = true)]
async fn a_parking_queue_that_is_created_again_is_found_again() {
    let world = World::new(orders(), FailureCounting::Culprit).await;
    let lot = world.client.create_queue(NewQueue::new("lot")).await.unwrap().id;
    let (handle, run) = start(world.worker(SECOND / 100, |_| false).on_reject(OnReject::Park("lot".into())));
    // Not the number that the handler decodes: it is rejected.
    let reject = async |done: u64| {
        for sent in world.client.send(&world.queue, &[Message::text("no number")]).await.unwrap() {
            sent.unwrap();
        }
        let wait = async {
            while handle.status().counts.rejected < done {
                sleep(SECOND / 10).await;
            }
        };
        timeout(SECOND * 10, wait).await.expect("it is not handled");
    };
    let parked = async || world.client.find_queue("lot").await.unwrap().produced_messages;
    reject(1).await;
    assert_eq!(parked().await, 1);
    world.client.delete_queue(&lot).await.unwrap();
    // Without it the message fails three times, and is a dead letter.
    reject(4).await;
    sleep(SECOND).await;
    assert_eq!(world.counts().await.2, 1);
    world.client.create_queue(NewQueue::new("lot")).await.unwrap();
    reject(5).await;
    assert_eq!(parked().await, 1, "the new one");
    assert_eq!(handle.failure(), None);
    handle.stop();
    assert!(run.await.unwrap().drained);
}
