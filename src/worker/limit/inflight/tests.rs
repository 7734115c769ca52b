use std::{
    pin::Pin,
    sync::atomic::AtomicUsize,
    task::{Context, Poll, Wake, Waker},
};

use tokio::time::Instant;

use super::*;
use crate::worker::limit::acquire::GATHER_TIME;

const ROOM: usize = 64 * MAX_BYTES;

#[tokio::test(start_paused = true)]
async fn capacity_for_messages_that_did_not_arrive_is_released() {
    let limiter = InflightLimiter::new(32, ROOM);
    let permits = limiter.reserve(10).await.into_permits([5, 6, 7].into_iter());
    assert_eq!(limiter.in_flight(), 3);
    drop(permits);
    assert_eq!(limiter.in_flight(), 0);
    assert_eq!(limiter.lock().bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_limiter_holds_polls_back() {
    let limiter = InflightLimiter::new(10, ROOM);
    let mut permits = limiter.reserve(10).await.into_permits([1; 10].into_iter());
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    permits.truncate(8);
    assert_eq!(waiting.await.messages(), 2, "a fifth of the places is enough to go out");
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Wakes {
    fn poll<F: Future>(self: &Arc<Self>, waiting: &mut Pin<Box<F>>) -> Poll<F::Output> {
        waiting.as_mut().poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

#[tokio::test(start_paused = true)]
async fn freed_capacity_wakes_one_poll_and_only_when_it_can_be_sent() {
    let limiter = InflightLimiter::new(20, ROOM);
    let mut permits = [limiter.reserve(10).await, limiter.reserve(10).await]
        .into_iter()
        .flat_map(|room| room.into_permits([1; 10].into_iter()))
        .collect::<Vec<_>>();
    let wakes: [Arc<Wakes>; 2] = Default::default();
    let mut waiting = [Box::pin(limiter.reserve(10)), Box::pin(limiter.reserve(10))];
    let woken = || wakes.each_ref().map(|wakes| wakes.0.load(Relaxed));
    for (wakes, waiting) in wakes.iter().zip(&mut waiting) {
        assert!(wakes.poll(waiting).is_pending());
    }
    permits.pop();
    assert_eq!(woken(), [1, 0], "the first place: it waits a moment for more");
    assert!(wakes[0].poll(&mut waiting[0]).is_pending());
    permits.truncate(17);
    assert_eq!(woken(), [1, 0], "three are not enough");
    permits.pop();
    assert_eq!(woken(), [2, 0], "a fifth of the places is");
    assert_eq!(wakes[0].poll(&mut waiting[0]).map(|room| room.messages()), Poll::Ready(4));
}

#[tokio::test(start_paused = true)]
async fn capacity_for_a_single_message_is_used_after_a_moment() {
    let limiter = InflightLimiter::new(10, ROOM);
    let _nine = limiter.reserve(9).await;
    let started = Instant::now();
    assert_eq!(limiter.reserve(10).await.messages(), 1);
    assert_eq!(started.elapsed(), GATHER_TIME);
}

#[tokio::test(start_paused = true)]
async fn bytes_hold_polls_back_but_never_the_first() {
    let limiter = InflightLimiter::new(100, 1);
    let first = limiter.reserve(10).await;
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let permits = first.into_permits([600].into_iter());
    assert!(futures_util::poll!(&mut waiting).is_pending(), "600 bytes are above the limit of 1");
    drop(permits);
    assert_eq!(waiting.await.messages(), 10);
}

/// At the limit polls stop, and continue when a fifth is free.
#[tokio::test(start_paused = true)]
async fn bytes_have_to_fall_below_their_limit_before_polls_continue() {
    let limiter = InflightLimiter::new(100, 10 * MAX_BYTES);
    let mut permits = limiter.reserve(10).await.into_permits([MAX_BYTES; 10].into_iter());
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    for left in [9, 8] {
        permits.pop();
        assert!(futures_util::poll!(&mut waiting).is_pending(), "{left} tenths");
    }
    permits.pop();
    assert_eq!(waiting.await.messages(), 10, "seven tenths, and the poll's own");
    let _ = limiter.reserve(10).await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_bytes_can_change_while_polls_wait() {
    let limiter = InflightLimiter::new(100, 1);
    let _one = limiter.reserve(10).await.into_permits([600].into_iter());
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    limiter.set_max_bytes(ROOM);
    assert_eq!(waiting.await.messages(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_limit_can_change_while_polls_wait() {
    let limiter = InflightLimiter::new(0, ROOM);
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    limiter.set_max_messages(5);
    assert_eq!(waiting.await.messages(), 5);
}

#[tokio::test(start_paused = true)]
async fn concurrency_caps_hold_until_the_last_is_dropped() {
    let limiter = InflightLimiter::new(10, ROOM);
    let (one, none) = (limiter.cap_concurrency(1), limiter.cap_concurrency(0));
    let waiting = limiter.reserve(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(none);
    let room = waiting.await;
    assert_eq!(room.messages(), 1);
    drop((one, room));
    assert_eq!(limiter.reserve(10).await.messages(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_poll_gives_everything_back() {
    let limiter = InflightLimiter::new(10, ROOM);
    drop(limiter.reserve(10).await);
    assert_eq!((limiter.in_flight(), limiter.lock().bytes), (0, 0));
}
