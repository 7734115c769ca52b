//! A shutdown: the work that it finishes, and the work that it stops.

use super::*;

/// Invariant 7: polls end, running handlers finish, and due acknowledgements are sent.
#[tokio::test(start_paused = true)]
async fn shutdown_finishes_started_messages() {
    let script = Script::new(&[&["a", "b"]]);
    let running = Running::start(&script, Settings::default(), |_, _| async {
        tokio::time::sleep(SECOND * 10).await;
        Ok(())
    });
    running.after(SECOND).await;
    let stopped = Instant::now();
    let report = running.stop().await;
    assert_eq!(stopped.elapsed(), SECOND * 9, "as long as the handlers need, not as long as a poll");
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    assert!(report.drained && report.done == 2);
    assert_eq!(script.out.load(SeqCst), 0, "no poll is left out");
}

/// Invariant 7: after the grace period handlers are stopped, and the finished prefix is acknowledged.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_grace_period_stops_handlers_and_keeps_what_is_done() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { grace: SECOND * 5, ..Settings::default() };
    let running = Running::start(&script, settings, |name, delivery| async move {
        if name == "b" {
            tokio::time::sleep(SECOND * 20).await;
            assert!(delivery.is_shutting_down());
        }
        Ok(())
    });
    running.after(SECOND).await;
    let stopped = Instant::now();
    let report = running.stop().await;
    assert!(stopped.elapsed() < SECOND * 6);
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])]);
    assert_eq!((report.drained, report.done, report.interrupted, report.failed), (false, 1, 1, 0));
}
