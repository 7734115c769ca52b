#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::poll;

use super::*;
use crate::worker::limit::acquire::GATHER_TIME;

fn limit(messages: usize, weights: &[u32], sharing: Sharing) -> (Arc<SharedLimit>, Vec<Arc<Membership>>) {
    let limit = SharedLimit::new(Some(messages), None, sharing);
    let shares = weights.iter().map(|weight| limit.join(*weight)).collect();
    (limit, shares)
}

fn used(limit: &SharedLimit) -> Vec<usize> {
    limit.lock().fair_share.used()
}

/// Every worker wants ten messages at a time and holds each for a while. Returns the average that each one holds.
async fn crowd(limit: &Arc<SharedLimit>, shares: &[Arc<Membership>]) -> Vec<f64> {
    let mut tasks = tokio::task::JoinSet::new();
    for share in shares.iter().flat_map(|share| vec![Arc::clone(share); 8]) {
        tasks.spawn(async move {
            loop {
                let polled = share.take(10).await;
                tokio::time::sleep(Duration::from_millis(3)).await;
                let sizes = vec![600; polled.messages()];
                for (at, one) in polled.split(&sizes).into_iter().enumerate() {
                    let takes = Duration::from_millis(100 + 13 * at as u64);
                    tokio::spawn(async move {
                        tokio::time::sleep(takes).await;
                        drop(one);
                    });
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut sums = vec![0.0; shares.len()];
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        sums.iter_mut().zip(used(limit)).for_each(|(sum, used)| *sum += used as f64 / 500.0);
    }
    tasks.shutdown().await;
    sums
}

#[tokio::test(start_paused = true)]
async fn a_scarce_limit_is_shared_by_weight() {
    let (limit, shares) = limit(70, &[4, 2, 1], Sharing::Weighted);
    let used = crowd(&limit, &shares).await;
    for (used, fair) in used.iter().zip([40.0, 20.0, 10.0]) {
        assert!((used / fair - 1.0).abs() < 0.15, "{used:?} instead of {fair}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(self::used(&limit), [0, 0, 0], "nothing leaks when polls are given up");
    assert!(!limit.lock().fair_share.is_wanted());
}

#[tokio::test(start_paused = true)]
async fn a_worker_alone_gets_all_but_the_guaranteed_messages_of_others() {
    let (limit, shares) = limit(30, &[1, 5, 5], Sharing::Weighted);
    let used = crowd(&limit, &shares[..1]).await;
    assert!(used[0] > 26.0 && used[0] < 28.01, "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn no_worker_starves_with_strict_sharing() {
    let (limit, shares) = limit(20, &[9, 1, 1], Sharing::Strict);
    let used = crowd(&limit, &shares).await;
    assert!(used[0] > 15.0, "the first takes what it wants: {used:?}");
    assert!(used[1] > 0.8 && used[2] > 0.8, "the others have their one place: {used:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_long_poll_holds_no_other_worker_back() {
    let (_ceiling, shares) = limit(4, &[1, 1, 1, 1], Sharing::Weighted);
    let _idle: Vec<Claim> = futures_util::future::join_all(shares.iter().take(3).map(|share| share.take(1))).await;
    let last = shares[3].take(10).await;
    assert_eq!(last.messages(), 1, "its own place is there, and no other");
    let second = shares[3].take(10);
    tokio::pin!(second);
    assert!(poll!(&mut second).is_pending());
    drop(last);
    assert_eq!(second.await.messages(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_are_shared_as_messages_are() {
    let limit = SharedLimit::new(None, Some(3 * MAX_BYTES), Sharing::Weighted);
    let (one, other) = (limit.join(1), limit.join(1));
    let first = one.take(10).await;
    let second = one.take(10).await;
    let third = one.take(10);
    tokio::pin!(third);
    assert!(poll!(&mut third).is_pending(), "the last poll's worth is the other's");
    assert_eq!(other.take(10).await.messages(), 10);
    let messages = first.split(&[600, 700]);
    assert!(poll!(&mut third).is_pending(), "1300 bytes of a poll are still there");
    drop(messages);
    assert_eq!(third.await.messages(), 10);
    drop(second);
    assert_eq!(used(&limit), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_stops_waiting_passes_its_turn_on() {
    let (limit, shares) = limit(12, &[1, 9], Sharing::Weighted);
    let all = shares[0].take(11).await;
    let mut waiting = Box::pin(shares[1].take(10));
    let one = tokio::time::timeout(GATHER_TIME * 2, &mut waiting).await;
    assert_eq!(one.map(|used| used.messages()), Ok(1), "only its own place is free");
    let mut waiting = Box::pin(shares[1].take(10));
    let mut other = Box::pin(shares[0].take(1));
    assert!(poll!(&mut waiting).is_pending() && poll!(&mut other).is_pending());
    drop(all);
    drop(waiting);
    assert_eq!(other.await.messages(), 1);
    assert_eq!(used(&limit), [0, 0]);
}

/// A thousand workers wait for capacity. Released capacity wakes only the workers concerned, so the work of a
/// change does not grow with their number, and each worker gets its turn.
#[tokio::test(start_paused = true)]
async fn a_change_wakes_few_of_a_thousand_workers_and_each_gets_its_turn() {
    const MEMBERS: usize = 1_000;
    let (limit, shares) = limit(MEMBERS + 100, &[1; MEMBERS], Sharing::Weighted);
    let served = Arc::new(Mutex::new(vec![0_usize; MEMBERS]));
    let mut tasks = tokio::task::JoinSet::new();
    // Three polls for each worker: one has the guaranteed message, and a hundred of the others share the rest.
    for (member, share) in shares.iter().enumerate().flat_map(|one| [one; 3]) {
        let (share, served) = (Arc::clone(share), Arc::clone(&served));
        tasks.spawn(async move {
            loop {
                let used = share.take(1).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
                served.lock().unwrap()[member] += used.messages();
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    tasks.shutdown().await;
    let served = served.lock().unwrap().clone();
    let (changes, attempts) = (served.iter().sum::<usize>(), limit.lock().attempts);
    assert!(changes > 25_000, "the places are used: {changes}");
    assert!(attempts < 4 * changes, "{attempts} attempts for {changes} changes");
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(*most <= *least + 8, "each got about as much: {least} to {most}");
    assert_eq!((limit.messages(), limit.lock().fair_share.is_wanted()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_left_reserves_nothing_and_its_place_is_used_again() {
    let (limit, mut shares) = limit(4, &[1, 1, 1], Sharing::Weighted);
    let held = shares[2].take(2).await;
    // Two are held and one is kept for the second member.
    let one = shares[0].take(4).await;
    assert_eq!(one.messages(), 1);
    drop(one);
    shares[1].leave();
    shares[2].leave();
    let first = shares[0].take(4).await;
    assert_eq!((first.messages(), limit.messages()), (2, 4), "held messages stay counted");
    drop((held, first));
    shares.truncate(1);
    let all = shares[0].take(4).await;
    assert_eq!(all.messages(), 4, "nothing is kept for members that have left");
    drop(all);
    for _ in 0..100 {
        drop(limit.join(1).take(1).await);
    }
    let further = limit.join(1);
    assert_eq!((used(&limit).len(), limit.lock().wakers.len()), (3, 3), "a hundred members took no more places");
    assert_eq!(further.take(1).await.messages(), 1);
}
