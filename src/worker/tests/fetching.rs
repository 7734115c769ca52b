//! How many polls are sent, and for how many messages.

use super::*;

/// Invariant 5: no message is fetched that cannot start at once.
#[tokio::test(start_paused = true)]
async fn polls_never_ask_for_more_than_there_is_capacity_for() {
    let script = Script::new(&[&["a", "b", "c", "d", "e", "f", "g", "h"]]);
    let busy = Arc::new(AtomicUsize::new(0));
    let count = busy.clone();
    let settings = Settings { concurrency: 3, ..Settings::default() };
    let running = Running::start(&script, settings, move |_, _| {
        let count = count.clone();
        async move {
            assert!(count.fetch_add(1, SeqCst) < 3, "more than three at once");
            tokio::time::sleep(SECOND).await;
            count.fetch_sub(1, SeqCst);
            Ok(())
        }
    });
    running.after(SECOND * 10).await;
    assert!(script.asked.lock().unwrap().iter().all(|&(_, asked)| asked <= 3));
    assert_eq!(running.stop().await.done, 8);
}

/// The first poll is short, so that a worker on an empty queue is ready soon and not only after its poll wait.
#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_ready_after_a_short_poll() {
    let script = Script::new(&[]);
    let running = Running::start(&script, Settings::default(), |_, _| async { Ok(()) });
    let handle = WorkerHandle(running.control.clone());
    running.after(SECOND / 2).await;
    assert!(handle.status().last_poll_age.is_none());
    running.after(SECOND).await;
    assert!(handle.status().last_poll_age.is_some());
    running.stop().await;
}

/// Invariant 6: an empty queue costs one request per poll wait; a full one gets many polls.
#[tokio::test(start_paused = true)]
async fn idle_is_one_poll_and_busy_is_many() {
    let script = Script::new(&[]);
    let running = Running::start(&script, Settings { concurrency: 100, ..Settings::default() }, |_, _| async {
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    running.after(SECOND * 199).await;
    assert_eq!(script.asked.lock().unwrap().len(), 11, "a short one, and then one every 20 s");
    script.batches.lock().unwrap().extend((0..40).map(|_| messages(&["x"; 10])));
    script.more.notify_one();
    running.after(SECOND / 2).await;
    assert_eq!(running.control.inflight.in_flight(), 100, "as much as may be in flight");
    running.after(SECOND * 60).await;
    let before = script.asked.lock().unwrap().len();
    running.after(SECOND * 200).await;
    assert_eq!(script.asked.lock().unwrap().len() - before, 10, "idle again");
    assert_eq!(running.stop().await.done, 400);
}

/// Invariant 4: no poll for more than one message is in flight when a failing acknowledgement is sent, and failed
/// messages are fetched one at a time.
#[tokio::test(start_paused = true)]
async fn after_a_failure_messages_are_fetched_one_at_a_time_until_all_were_seen() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let failed = AtomicUsize::new(0);
    let running = Running::start(&script, Settings::default(), move |name, _| {
        let fails = name == "a" && failed.fetch_add(1, SeqCst) == 0;
        async move { if fails { Err(HandlerError::retry("no")) } else { Ok(()) } }
    });
    running.after(SECOND / 10).await;
    assert!(script.acks().is_empty(), "a batch poll is in flight");
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)])], "it has come back");
    script.batches.lock().unwrap().push_back(messages(&["a", "b", "c", "d", "e"]));
    script.more.notify_waiters();
    let asked = script.asked.lock().unwrap().len();
    running.after(SECOND * 3).await;
    let later: Vec<_> = script.asked.lock().unwrap()[asked - 2..].iter().map(|(_, asked)| *asked).collect();
    assert!(later.windows(4).any(|asked| asked == [1, 1, 1, 10]), "{later:?}");
    assert_eq!(running.stop().await.done, 2 + 5);
}

/// A paused worker fetches nothing; messages in flight are finished.
#[tokio::test(start_paused = true)]
async fn a_paused_worker_fetches_nothing_until_it_is_resumed() {
    let script = Script::new(&[]);
    let running = Running::start(&script, Settings::default(), |_, _| async { Ok(()) });
    let handle = WorkerHandle(running.control.clone());
    handle.pause();
    running.after(SECOND * 30).await;
    script.batches.lock().unwrap().push_back(messages(&["a"]));
    running.after(SECOND * 60).await;
    assert_eq!(handle.status().counts.received, 0);
    handle.resume();
    running.after(SECOND).await;
    assert_eq!(handle.status().counts.done, 1);
    handle.stop();
    handle.stop();
    assert!(running.worker.await.unwrap().drained);
    advance(SECOND).await;
}

/// A rate limit holds over time, and idle polls keep no tokens.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_messages_back() {
    let batches: Vec<&[&'static str]> = vec![&["x"; 10]; 20];
    let script = Script::new(&batches);
    let rate = Rate::try_new(10, SECOND).unwrap();
    let settings = Settings { rate_limit: Some(rate), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    running.after(SECOND * 10).await;
    let received = running.control.counters.report(false).received;
    assert!((95..=115).contains(&received), "{received} in ten seconds");
    running.stop().await;
}
