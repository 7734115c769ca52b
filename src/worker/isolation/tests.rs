use super::*;
use futures_util::poll;

fn messages(count: usize) -> Vec<MessageTrace> {
    vec![MessageTrace { sequence: None, attempt: None }; count]
}

fn suspect(isolation: &Isolation, count: usize) {
    isolation.suspect(&messages(count), Instant::now() + Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_failing_acknowledgement_waits_for_the_batch_polls() {
    let isolation = Isolation::default();
    let batch_polls = isolation.admit(10).await;
    let close = isolation.close();
    tokio::pin!(close);
    tokio::select! {
        biased;
        _ = &mut close => panic!("a batch poll is in flight"),
        () = tokio::time::sleep(GATHER_TIME * 10) => {}
    }
    batch_polls.answered(&messages(3));
    close.await;
}

#[tokio::test(start_paused = true)]
async fn failed_messages_are_fetched_one_at_a_time_and_then_batches_again() {
    let isolation = Isolation::default();
    drop(isolation.close().await);
    suspect(&isolation, 2);
    for _ in 0..2 {
        let pass = isolation.admit(10).await;
        assert_eq!(pass.want(), 1);
        pass.answered(&messages(1));
    }
    assert_eq!(isolation.admit(10).await.want(), 10);
}

#[tokio::test(start_paused = true)]
async fn no_batch_poll_is_sent_during_a_failing_acknowledgement() {
    let isolation = Isolation::default();
    let closed = isolation.close().await;
    let admit = isolation.admit(10);
    tokio::pin!(admit);
    assert!(poll!(&mut admit).is_pending());
    drop(closed);
    assert_eq!(admit.await.want(), 10, "nothing failed after all");
}

/// Whether its reply is lost, its lease expired or its transport panicked, the messages may be redelivered
/// together.
#[tokio::test(start_paused = true)]
async fn messages_stay_quarantined_however_their_acknowledgement_ends_unless_it_is_refused() {
    let lease = Duration::from_secs(30);
    for refused in [false, true] {
        let isolation = Isolation::default();
        let mut closed = isolation.close().await;
        let leases = LeaseEnds { own: Instant::now() + lease, others: Instant::now() + lease * 3 };
        closed.quarantine(messages(3), leases);
        if refused {
            closed.clear();
        }
        drop(closed);
        assert_eq!(isolation.admit(10).await.want(), if refused { 10 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_for_a_single_message_is_not_waited_for() {
    let isolation = Isolation::default();
    let _single = isolation.admit(1).await;
    drop(isolation.close().await);
}

/// A single message may be turned away behind a failure of its key, and count as failed.
#[tokio::test(start_paused = true)]
async fn with_ordering_by_key_every_poll_is_waited_for() {
    let isolation = Isolation::new(FetchMode { single_poller: true, keys: true, ..FetchMode::default() });
    let single = isolation.admit(1).await;
    let close = isolation.close();
    tokio::pin!(close);
    assert!(poll!(&mut close).is_pending());
    drop(single);
    close.await;
}

#[tokio::test(start_paused = true)]
async fn quarantined_messages_that_another_replica_holds_are_waited_for() {
    let isolation = Isolation::default();
    drop(isolation.close().await);
    suspect(&isolation, 5);
    isolation.admit(10).await.answered(&[]);
    assert_eq!(isolation.admit(10).await.want(), 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    isolation.admit(10).await.answered(&[]);
    assert_eq!(isolation.admit(10).await.want(), 10);
}

/// Operators see which messages are fetched one at a time, until all of them were seen.
#[tokio::test(start_paused = true)]
async fn quarantined_messages_are_shown() {
    let shown = Arc::default();
    let isolation = Isolation::default().shown_in(&shown);
    let isolated = || *shown.lock().unwrap_or_else(PoisonError::into_inner);
    let trace = |sequence| MessageTrace { sequence: Some(sequence), attempt: Some(1) };
    let suspects = [17, 18, 31].map(trace);
    isolation.suspect(&suspects, Instant::now() + Duration::from_secs(60));
    assert_eq!(isolated(), Isolated { messages: 3, first: Some(17), last: Some(31) });
    for (sequence, left) in [(17, 2), (18, 1), (31, 0)] {
        isolation.admit(10).await.answered(&[trace(sequence)]);
        assert_eq!(isolated().messages, left);
    }
    assert_eq!(isolated(), Isolated::default());
}
