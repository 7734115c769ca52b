#![allow(clippy::unwrap_used)]

use super::*;

async fn taken_in(limit: &TokenBucket, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut taken = 0;
    while let Ok(more) = tokio::time::timeout_at(until, limit.take(10)).await {
        taken += more.count;
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_over_time_after_the_first_burst() {
    let limit = TokenBucket::new(Some(Rate::try_new(20, Duration::from_secs(1)).unwrap()));
    let taken = taken_in(&limit, Duration::from_secs(10)).await;
    assert!((200..=220).contains(&taken), "{taken} in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_lets_single_messages_through() {
    let limit = TokenBucket::new(Some(Rate::try_new(6, Duration::from_secs(60)).unwrap()));
    assert_eq!(limit.take(10).await.count, 1);
    let began = Instant::now();
    assert_eq!(limit.take(10).await.count, 1);
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn returned_tokens_can_be_taken_again() {
    let limit = TokenBucket::new(Some(Rate::try_new(5, Duration::from_secs(1)).unwrap()));
    let tokens = limit.take(5).await;
    assert_eq!(tokens.count, 5);
    limit.give_back(tokens.split(1).1);
    let began = Instant::now();
    assert_eq!(limit.take(10).await.count, 4);
    assert!(began.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_rate_can_change_while_somebody_waits() {
    let second = Duration::from_secs(1);
    let limit = TokenBucket::new(Some(Rate::try_new(1, second * 3600).unwrap()));
    assert_eq!(limit.take(10).await.count, 1);
    let waiting = limit.take(10);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    limit.set(Some(Rate::try_new(10, second).unwrap()));
    let began = Instant::now();
    assert_eq!(waiting.await.count, 1);
    assert_eq!(began.elapsed(), second / 10, "a new rate gives no burst");
    limit.set(None);
    assert_eq!(limit.take(10).await.count, 10);
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_gives_no_burst_for_polls_in_flight() {
    let second = Duration::from_secs(1);
    let limit = TokenBucket::new(None);
    let mut out = Vec::new();
    for _ in 0..8 {
        out.push(limit.take(10).await);
    }
    limit.set(Some(Rate::try_new(5, second).unwrap()));
    for tokens in out {
        limit.give_back(tokens);
    }
    let taken = taken_in(&limit, second * 10).await;
    assert!((45..=51).contains(&taken), "{taken} in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_faster_rate_do_not_go_back_to_a_slower_one() {
    let second = Duration::from_secs(1);
    let limit = TokenBucket::new(Some(Rate::try_new(1000, second).unwrap()));
    let tokens = limit.take(1000).await;
    limit.set(Some(Rate::try_new(1, second * 3600).unwrap()));
    limit.give_back(tokens);
    let began = Instant::now();
    assert_eq!(limit.take(10).await.count, 1);
    assert_eq!(began.elapsed(), second * 3600);
}

#[tokio::test(start_paused = true)]
async fn waiting_tasks_are_woken_by_a_higher_rate_by_no_rate_and_by_returned_tokens() {
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let slow = Rate::try_new(1, hour).unwrap();
    for (what, after) in [("raised", second / 10), ("removed", Duration::ZERO), ("given back", Duration::ZERO)] {
        let limit = TokenBucket::new(Some(slow));
        let tokens = limit.take(1).await;
        let began = Instant::now();
        let waiting = limit.take(1);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        match what {
            "raised" => limit.set(Some(Rate::try_new(10, second).unwrap())),
            "removed" => limit.set(None),
            _ => limit.give_back(tokens),
        }
        assert_eq!(waiting.await.count, 1);
        assert_eq!(began.elapsed(), after, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn setting_the_same_rate_again_changes_nothing() {
    let rate = Rate::try_new(5, Duration::from_secs(1)).unwrap();
    let limit = TokenBucket::new(Some(rate));
    limit.set(Some(rate));
    assert_eq!(limit.take(10).await.count, 5);
}

#[test]
fn rates_that_make_no_sense_are_refused() {
    let second = Duration::from_secs(1);
    for (messages, per) in [(0, second), (2_000_000, second), (1, second * 90_000), (1, Duration::ZERO)] {
        assert!(Rate::try_new(messages, per).is_err(), "{messages} per {per:?}");
    }
}
