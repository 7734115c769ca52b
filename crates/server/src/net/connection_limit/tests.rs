#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use futures_util::FutureExt;
use tokio::time::advance;

use super::*;
use crate::net::waiting_poll::{MIN_WAIT, PollGuard};

fn peer(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(number))
}

fn slots(most: usize) -> Arc<ConnectionLimit> {
    ConnectionLimit::new("test", most, Audience::Operators, ConnectionMetrics::default())
}

async fn take(connections: &Arc<ConnectionLimit>, number: u32) -> Option<ConnectionSlot> {
    advance(Duration::from_millis(1)).await;
    connections.try_take(peer(number))
}

fn is_displaced(slot: &ConnectionSlot) -> bool {
    slot.connection().displaced.is_cancelled()
}

#[tokio::test(start_paused = true)]
async fn the_quietest_stranger_gives_up_its_place_and_those_at_work_never() {
    let connections = slots(4);
    let (working, known) = (take(&connections, 1).await.unwrap(), take(&connections, 2).await.unwrap());
    working.connection().progress.begin(false);
    known.connection().has_authenticated();
    let (older, recent) = (take(&connections, 3).await.unwrap(), take(&connections, 4).await.unwrap());
    advance(Duration::from_millis(1)).await;
    older.connection().answered();
    let fifth = take(&connections, 5).await.unwrap();
    assert!(is_displaced(&recent) && !is_displaced(&older), "the connection with the latest answer stays");
    fifth.connection().progress.begin(false);
    let sixth = take(&connections, 6).await.unwrap();
    assert!(is_displaced(&older));
    sixth.connection().progress.begin(false);
    let seventh = take(&connections, 7).await.unwrap();
    assert!(is_displaced(&known), "known ones come after all strangers");
    seventh.connection().progress.begin(false);
    assert!(take(&connections, 8).await.is_none(), "all are at work");
    assert!(!is_displaced(&working));
    seventh.connection().answered();
    assert!(take(&connections, 8).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_keeps_no_place_for_a_stranger() {
    let connections = slots(2);
    let (stranger, known) = (take(&connections, 1).await.unwrap(), take(&connections, 2).await.unwrap());
    known.connection().has_authenticated();
    known.connection().progress.begin(true);
    stranger.connection().progress.begin(true);
    let next = take(&connections, 3).await.unwrap();
    assert!(is_displaced(&stranger) && !is_displaced(&known));
    next.connection().progress.begin(false);
    assert!(take(&connections, 4).await.is_none());
}

/// Answers to wrong passwords are delayed. While they are, their connections keep nobody else out.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_held_back_keeps_no_place_for_a_stranger() {
    let connections = slots(1);
    let guesser = take(&connections, 1).await.unwrap();
    guesser.connection().progress.begin(false);
    assert!(take(&connections, 2).await.is_none());
    guesser.connection().hold_back();
    let next = take(&connections, 2).await.unwrap();
    assert!(is_displaced(&guesser));
    next.connection().hold_back();
    next.connection().answered();
    next.connection().progress.begin(false);
    assert!(take(&connections, 3).await.is_none(), "its next request is worked on");
}

#[tokio::test(start_paused = true)]
async fn the_strangers_of_a_peer_displace_each_other_beyond_its_share() {
    let connections = slots(16);
    let other = take(&connections, 1).await.unwrap();
    let mut known = Vec::new();
    for _ in 0..6 {
        known.push(take(&connections, 2).await.unwrap());
        known.iter().for_each(|slot| slot.connection().has_authenticated());
    }
    let mut strangers = Vec::new();
    for _ in 0..10 {
        strangers.push(take(&connections, 2).await.unwrap());
    }
    assert_eq!(strangers.iter().filter(|slot| is_displaced(slot)).count(), 6);
    assert!(strangers[..6].iter().all(is_displaced), "the oldest go");
    assert!(!is_displaced(&other) && !known.iter().any(is_displaced));
    drop((other, known, strangers));
    let table = connections.table.lock().unwrap();
    assert!(table.slots.is_empty() && table.peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_waited_for_until_one_is_free() {
    let connections = slots(1);
    let first = connections.take(peer(1)).await;
    first.connection().progress.begin(false);
    let second = connections.take(peer(2));
    let (_, second) = tokio::join!(
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        },
        second
    );
    assert!(!is_displaced(&second));
}

/// Lets a consume call wait on a connection.
fn poll(slot: &ConnectionSlot, project: u64, group: u64) -> PollGuard<'_> {
    slot.connection().progress.begin(false);
    slot.connection().waiting_poll.begin(Owner { project, group })
}

fn is_ended(poll: &PollGuard<'_>) -> bool {
    poll.ended().now_or_never().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_waiting_poll_of_the_project_with_the_most_gives_up_its_connection() {
    let connections = slots(4);
    let (first, third) = (take(&connections, 1).await.unwrap(), take(&connections, 3).await.unwrap());
    let (second, fourth) = (take(&connections, 2).await.unwrap(), take(&connections, 4).await.unwrap());
    let alone = poll(&first, 1, 1);
    advance(Duration::from_millis(1)).await;
    let older = poll(&second, 2, 2);
    advance(Duration::from_millis(1)).await;
    let newer = poll(&third, 2, 3);
    fourth.connection().progress.begin(false);
    assert!(take(&connections, 5).await.is_none());
    assert!(!is_ended(&older), "a call that has hardly begun to wait goes on");
    advance(MIN_WAIT).await;
    assert!(take(&connections, 5).await.is_none(), "its answer has to be written first");
    assert!(is_ended(&older) && !is_ended(&alone) && !is_ended(&newer));
    assert!(take(&connections, 5).await.is_none());
    assert!(!is_ended(&newer), "one call is ended for one new connection");
    drop(older);
    drop(second);
    assert!(take(&connections, 5).await.is_some());
}

/// A peer that does not read the answer of its ended call keeps its connection for a second at most.
#[tokio::test(start_paused = true)]
async fn an_ended_poll_is_cut_when_its_answer_is_not_read() {
    let connections = slots(1);
    let slot = take(&connections, 1).await.unwrap();
    let waiting = poll(&slot, 1, 1);
    advance(MIN_WAIT).await;
    assert!(take(&connections, 2).await.is_none());
    drop(waiting);
    slot.connection().answered();
    assert!(take(&connections, 2).await.is_none() && !is_displaced(&slot));
    advance(Duration::from_secs(1)).await;
    assert!(take(&connections, 2).await.is_some() && is_displaced(&slot));
}
