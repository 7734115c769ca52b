#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;

use tokio::time::advance;

use super::*;

fn peer(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(number))
}

fn places(most: usize) -> Arc<ConnectionLimit> {
    ConnectionLimit::new("test", most, Audience::Operators, ConnectionMetrics::default())
}

async fn take(connections: &Arc<ConnectionLimit>, number: u32) -> Option<ConnectionSlot> {
    advance(Duration::from_millis(1)).await;
    connections.try_take(peer(number))
}

fn is_displaced(place: &ConnectionSlot) -> bool {
    place.visitor().displaced.is_cancelled()
}

#[tokio::test(start_paused = true)]
async fn the_quietest_stranger_gives_up_its_place_and_those_at_work_never() {
    let connections = places(4);
    let (working, known) = (take(&connections, 1).await.unwrap(), take(&connections, 2).await.unwrap());
    working.visitor().progress.begin(false);
    known.visitor().has_authenticated();
    let (older, recent) = (take(&connections, 3).await.unwrap(), take(&connections, 4).await.unwrap());
    advance(Duration::from_millis(1)).await;
    older.visitor().answered();
    let fifth = take(&connections, 5).await.unwrap();
    assert!(is_displaced(&recent) && !is_displaced(&older), "the one that was answered last stays");
    fifth.visitor().progress.begin(false);
    let sixth = take(&connections, 6).await.unwrap();
    assert!(is_displaced(&older));
    sixth.visitor().progress.begin(false);
    let seventh = take(&connections, 7).await.unwrap();
    assert!(is_displaced(&known), "known ones come after all strangers");
    seventh.visitor().progress.begin(false);
    assert!(take(&connections, 8).await.is_none(), "all are at work");
    assert!(!is_displaced(&working));
    seventh.visitor().answered();
    assert!(take(&connections, 8).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_keeps_no_place_for_a_stranger() {
    let connections = places(2);
    let (stranger, known) = (take(&connections, 1).await.unwrap(), take(&connections, 2).await.unwrap());
    known.visitor().has_authenticated();
    known.visitor().progress.begin(true);
    stranger.visitor().progress.begin(true);
    let next = take(&connections, 3).await.unwrap();
    assert!(is_displaced(&stranger) && !is_displaced(&known));
    next.visitor().progress.begin(false);
    assert!(take(&connections, 4).await.is_none());
}

/// Whoever sends wrong passwords on many connections keeps nobody else out while the answers are held back.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_held_back_keeps_no_place_for_a_stranger() {
    let connections = places(1);
    let guesser = take(&connections, 1).await.unwrap();
    guesser.visitor().progress.begin(false);
    assert!(take(&connections, 2).await.is_none());
    guesser.visitor().hold_back();
    let next = take(&connections, 2).await.unwrap();
    assert!(is_displaced(&guesser));
    next.visitor().hold_back();
    next.visitor().answered();
    next.visitor().progress.begin(false);
    assert!(take(&connections, 3).await.is_none(), "its next request is worked on");
}

#[tokio::test(start_paused = true)]
async fn the_strangers_of_a_peer_displace_each_other_beyond_its_share() {
    let connections = places(16);
    let other = take(&connections, 1).await.unwrap();
    let mut known = Vec::new();
    for _ in 0..6 {
        known.push(take(&connections, 2).await.unwrap());
        known.iter().for_each(|place| place.visitor().has_authenticated());
    }
    let mut strangers = Vec::new();
    for _ in 0..10 {
        strangers.push(take(&connections, 2).await.unwrap());
    }
    assert_eq!(strangers.iter().filter(|place| is_displaced(place)).count(), 6);
    assert!(strangers[..6].iter().all(is_displaced), "the oldest go");
    assert!(!is_displaced(&other) && !known.iter().any(is_displaced));
    drop((other, known, strangers));
    let table = connections.table.lock().unwrap();
    assert!(table.places.is_empty() && table.peers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_place_is_waited_for_until_one_is_free() {
    let connections = places(1);
    let first = connections.take(peer(1)).await;
    first.visitor().progress.begin(false);
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
