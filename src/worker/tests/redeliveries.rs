//! Messages that are redelivered while an earlier delivery is in progress.

use super::*;

/// Invariant 3: no handler starts with too little time left, whatever its message waited for.
#[tokio::test(start_paused = true)]
async fn a_message_that_waited_for_its_earlier_run_until_the_deadline_does_not_begin() {
    let script = Script::new(&[&["a", "b"]]);
    // The first lease is 30 s. Polls after a quick run ask for 15 s, so the second lease ends while the first run of
    // `b` hangs.
    let settings = Settings {
        unique_key: Some(UniqueKey::Attribute("key".into())),
        ack_wait: AckWait::Auto,
        poll_wait: SECOND,
        ..Settings::default()
    };
    let begun = Arc::new(AtomicUsize::new(0));
    let running = Running::start(&script, settings, {
        let begun = begun.clone();
        move |name, _| {
            let begun = begun.clone();
            async move {
                if name == "a" {
                    return Err(HandlerError::retry("no"));
                }
                begun.fetch_add(1, SeqCst);
                std::future::pending().await
            }
        }
    });
    running.after(SECOND * 2).await;
    script.push(&["b"]);
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)]), list(&[("b", FAIL)])]);
    assert_eq!(begun.load(SeqCst), 1, "its lease was over when the first run ended");
    assert_eq!(running.stop().await.skipped, 1);
}

/// A service that does not say how long a poll has waited may have leased the messages long ago, on a slow network so long ago that
/// only milliseconds are left. The message is handed back at once, and its attempt does not count.
#[tokio::test(start_paused = true)]
async fn a_message_with_too_little_of_its_lease_left_is_handed_back_without_an_attempt() {
    let script = Script::new(&[&["a"]]);
    script.hides_waits.store(true, SeqCst);
    // The margin becomes the half of the lease.
    *script.ack_takes.lock().unwrap() = Duration::from_millis(400);
    let settings = Settings { ack_wait: AckWait::Fixed(SECOND), ..Settings::default() };
    let begun = Arc::new(Mutex::new(Vec::new()));
    let running = Running::start(&script, settings, {
        let begun = begun.clone();
        move |name, _| {
            begun.lock().unwrap().push(name);
            async { Ok(()) }
        }
    });
    running.after(Duration::from_millis(495)).await;
    script.push(&["b"]);
    running.after(Duration::from_millis(200)).await;
    assert_eq!(*begun.lock().unwrap(), ["a"], "5 ms were left");
    assert_eq!(script.acks(), [list(&[("a", OK)]), list(&[("b", FAIL)])]);
    let report = running.stop().await;
    assert_eq!((report.done, report.failed, report.timed_out, report.skipped), (1, 0, 0, 1), "{report:?}");
}

/// Invariant 4: finished work is not repeated, even while its acknowledgement is being retried.
#[tokio::test(start_paused = true)]
async fn a_message_redelivered_before_its_acknowledgement_is_answered_is_not_run_again() {
    let script = Script::new(&[&["a"]]);
    *script.ack_takes.lock().unwrap() = SECOND * 10;
    let settings = Settings { unique_key: Some(UniqueKey::Attribute("key".into())), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    running.after(SECOND).await;
    script.push(&["a"]);
    running.after(SECOND * 20).await;
    let report = running.stop().await;
    assert_eq!((report.received, report.done, report.remembered), (2, 1, 1));
}
