//! How a batch is acknowledged, depending on its handlers.

use super::*;

/// Invariant 2: one acknowledgement per batch, in the order of consumption, whatever the order of completion.
#[tokio::test(start_paused = true)]
async fn a_batch_is_acknowledged_once_and_in_the_order_of_consumption() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        tokio::time::sleep(SECOND * (4 - u32::from(name.as_bytes()[0] - b'a'))).await;
        Ok(())
    });
    running.after(SECOND * 10).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK), ("c", OK)])]);
    assert_eq!(script.ack_times(), [SECOND * 4], "when the slowest is done, no earlier");
    assert!(running.stop().await.drained);
}

/// Invariants 1 and 2: the acknowledgement covers the prefix up to the first failure, and the failure.
#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_prefix() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        if name == "b" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND * 2).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    let report = running.stop().await;
    assert_eq!((report.done, report.failed), (2, 1));
}

/// Invariant 2: the acknowledgement is sent at the first failure once all messages before it are done, while others are
/// running.
#[tokio::test(start_paused = true)]
async fn a_failure_does_not_wait_for_the_messages_after_it() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        match name.as_str() {
            "a" => tokio::time::sleep(SECOND * 2).await,
            "c" => tokio::time::sleep(SECOND * 20).await,
            _ => return Err(HandlerError::retry("no")),
        }
        Ok(())
    });
    running.after(SECOND * 3).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!(running.control.counters.report(false).done, 1, "c goes on");
    running.after(SECOND * 20).await;
    assert_eq!(running.stop().await.done, 2);
}

/// Invariant 3: a handler that hangs is stopped in time for the prefix to be acknowledged before the lease ends.
#[tokio::test(start_paused = true)]
async fn a_hanging_handler_is_stopped_before_the_lease_ends() {
    let script = Script::new(&[&["a", "b"]]);
    let told = Arc::new(AtomicUsize::new(0));
    let seen = told.clone();
    let running = Running::start(&script, Settings::default(), move |name, delivery| {
        let seen = seen.clone();
        async move {
            if name == "b" {
                delivery.cancelled().await;
                seen.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    let at = script.ack_times()[0];
    assert!(at >= SECOND * 29 && at < SECOND * 30, "{at:?}");
    assert_eq!(told.load(SeqCst), 1, "the handler saw the cancellation before it was stopped");
    assert_eq!(running.stop().await.timed_out, 1);
}

/// Invariant 8: a panic fails its message only.
#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_message_only() {
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        assert_ne!(name, "b", "planted");
        Ok(())
    });
    running.after(SECOND * 2).await;
    let acks = script.acks();
    assert!(acks.contains(&list(&[("a", OK), ("b", FAIL)])) && acks.contains(&list(&[("c", OK)])), "{acks:?}");
    let report = running.stop().await;
    assert_eq!((report.done, report.panicked), (2, 1));
}

/// An observer that panics at every event has no effect.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_has_no_effect() {
    struct Panics;
    impl Observer for Panics {
        fn observe(&self, _: &Origin, event: &Event<'_>) {
            panic!("planted at {event:?}");
        }
    }
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let running = Running::observed(&script, Settings::default(), Some(Arc::new(Panics)), |_, _| async { Ok(()) });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)]), list(&[("c", OK)])]);
    assert_eq!(running.stop().await.done, 3);
}

/// Releases a blocked handler when it is reported as stuck.
struct LetGo(std::sync::mpsc::Sender<()>);

impl Observer for LetGo {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        if let Event::Stuck { .. } = event {
            self.0.send(()).unwrap();
        }
    }
}

/// Invariant 3: a handler that ignores its cancellation is reported, and the prefix before it is acknowledged without
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_is_reported_as_stuck() {
    let script = Script::new(&[&["a", "b"]]);
    let (release, blocked) = std::sync::mpsc::channel();
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let settings = Settings { grace: Duration::ZERO, ordering: Ordering::Batch, ..Settings::default() };
    let running = Running::observed(&script, settings, Some(Arc::new(LetGo(release))), move |name, _| {
        let (begun, blocked) = (begun.clone(), blocked.clone());
        async move {
            if name == "b" {
                begun.send(()).unwrap();
                blocked.lock().unwrap().recv().unwrap();
            }
            Ok(())
        }
    });
    begins.recv().await.unwrap();
    let report = running.stop().await;
    assert_eq!((report.stuck, report.drained), (1, false));
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
}
