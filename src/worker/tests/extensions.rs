//! Rejected and released messages, on a service with the extensions of this project's server and on one without.

use super::*;
use crate::client::Extensions;

const RELEASE: AckStatus = AckStatus::Release;
const REJECT: AckStatus = AckStatus::Reject;

fn with(extensions: Extensions, batches: &[&[&'static str]]) -> Arc<Script> {
    let script = Script::new(batches);
    *script.extensions.lock().unwrap() = extensions;
    script
}

/// Starts a worker that rejects `poison` and succeeds with the others.
fn rejecting(script: &Arc<Script>, settings: Settings) -> Running {
    Running::start(script, settings, |name, _| async move {
        if name.starts_with("poison") { Err(HandlerError::reject("no such account")) } else { Ok(()) }
    })
}

/// A reject settles its message, so messages after it are acknowledged and not redelivered.
#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_a_dead_letter_at_once_and_its_batch_continues() {
    let script = with(Extensions::ALL, &[&["a", "poison", "c"]]);
    let running = rejecting(&script, Settings::default());
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("poison", REJECT), ("c", OK)])]);
    let (position, report) = script.failures.lock().unwrap()[0].clone();
    assert_eq!((position.as_str(), &*report.reason, report.error.as_str()), ("poison", "rejected", "no such account"));
    assert!(report.worker == "test" && report.last_failure_ms.is_some());
    let report = running.stop().await;
    assert_eq!((report.done, report.rejected, report.redelivered), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn without_the_extension_a_rejected_message_fails() {
    let script = with(Extensions::NONE, &[&["a", "poison", "c"]]);
    let running = rejecting(&script, Settings::default());
    running.after(SECOND * 3).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("poison", FAIL)])]);
    running.stop().await;
}

fn releasing(script: &Arc<Script>) -> Running {
    Running::start(script, Settings::default(), |name, _| async move {
        if name == "b" { Err(HandlerError::release("nobody was there")) } else { Ok(()) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_message_that_its_handler_releases_is_handed_back_without_a_failure() {
    let script = with(Extensions::ALL, &[&["a", "b", "c"]]);
    let running = releasing(&script);
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", RELEASE)])]);
    assert!(script.failures.lock().unwrap().is_empty());
    let report = running.stop().await;
    assert_eq!((report.deferred, report.failed, report.released, report.redelivered), (1, 0, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn without_the_extension_a_released_message_is_deferred() {
    let script = with(Extensions::NONE, &[&["a", "b", "c"]]);
    let running = releasing(&script);
    running.after(SECOND * 3).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK), ("c", OK)])], "a delayed copy was sent");
    assert_eq!(running.stop().await.deferred, 1);
}

/// The queue may have lost its dead letters since the start. A refused reject changes nothing, and the message fails
/// instead.
#[tokio::test(start_paused = true)]
async fn a_reject_that_is_refused_becomes_a_failure() {
    let script = with(Extensions::ALL, &[&["a", "poison", "c"]]);
    script.refuses_extensions.store(1, SeqCst);
    let running = rejecting(&script, Settings::default());
    running.after(SECOND * 10).await;
    let rejected = list(&[("a", OK), ("poison", REJECT), ("c", OK)]);
    assert_eq!(script.acks(), [rejected, list(&[("a", OK), ("poison", FAIL)])]);
    assert_eq!(
        script.ack_times()[1].as_secs(),
        8,
        "the failure is not sent at once, because the message would be redelivered in a loop"
    );
    running.stop().await;
}

/// An older replica may share the address. A failure of the first message costs less than an expired lease of all.
#[tokio::test(start_paused = true)]
async fn a_release_that_is_refused_becomes_a_failure() {
    let script = with(Extensions::ALL, &[&["a", "b"]]);
    script.refuses_extensions.store(1, SeqCst);
    let running =
        Running::start(&script, Settings { grace: SECOND, ..Settings::default() }, |_, _| std::future::pending());
    running.after(SECOND).await;
    running.stop().await;
    assert_eq!(script.acks(), [list(&[("a", RELEASE)]), list(&[("a", FAIL)])]);
    assert!(script.failures.lock().unwrap().is_empty(), "a handler that the shutdown stopped has not failed");
}

/// The status says that the message failed, because the service knows no other. It has no reason, so none is invented.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_not_started_has_no_reason_to_have_failed() {
    for (extensions, refused) in [(Extensions::ALL, 2), (Extensions::NONE, 0)] {
        let script = with(extensions, &[&["a1"], &["a2"]]);
        script.refuses_extensions.store(refused, SeqCst);
        let settings = Settings { grace: SECOND, ordering: Ordering::by_attribute("key"), ..Settings::default() };
        let running = Running::start(&script, settings, |_, _| std::future::pending());
        running.after(SECOND).await;
        running.stop().await;
        assert!(script.acks().contains(&list(&[("a2", FAIL)])), "{:?}", script.acks());
        assert!(script.failures.lock().unwrap().is_empty(), "refused: {refused}");
    }
}

/// A parking queue that was deleted stores nothing, and a copy that is too large is refused each time. Without dead
/// letters, such messages are redelivered slowly.
#[tokio::test(start_paused = true)]
async fn a_message_whose_copy_is_refused_is_redelivered_slowly() {
    let park = Settings { on_reject: OnReject::Park("attic".into()), ..Settings::default() };
    let then = OnReject::Discard;
    let on_failure = OnFailure::Republish(Republish { then, ..Republish::default() });
    let republish = Settings { on_failure, ..Settings::default() };
    let ways: [(Settings, fn() -> HandlerError); 2] =
        [(park, || HandlerError::reject("no")), (republish, || HandlerError::retry("no"))];
    for (settings, error) in ways {
        for (dead_letters, seconds) in [(true, 0), (false, 8)] {
            let script = with(Extensions::ALL, &[&["poison"]]);
            script.refuses_copies.store(true, SeqCst);
            let running =
                Running::on_queue(&script, settings.clone(), dead_letters, move |_, _| async move { Err(error()) });
            running.after(SECOND * 10).await;
            assert_eq!(script.acks(), [list(&[("poison", FAIL)])]);
            assert_eq!(script.ack_times()[0].as_secs(), seconds, "dead letters: {dead_letters}");
            running.stop().await;
        }
    }
}

/// A failure is reported with its reason.
#[tokio::test(start_paused = true)]
async fn failures_say_why() {
    let script = with(Extensions::ALL, &[&["retry"], &["panic"], &["slow"], &["undecodable"], &["silent"]]);
    let settings =
        Settings { handler_timeout: Some(SECOND * 5), max_messages: MaxMessages::Fixed(1), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        match name.as_str() {
            "retry" => Err(HandlerError::retry("the database is away")),
            "panic" => panic!("planted"),
            "slow" => std::future::pending().await,
            "silent" => Err(HandlerError::timed_out("the ledger does not answer")),
            _ => Err(HandlerError::undecodable("not an order")),
        }
    });
    running.after(SECOND * 20).await;
    let mut why: Vec<_> =
        script.failures.lock().unwrap().iter().map(|(name, why)| (name.clone(), why.clone())).collect();
    why.sort_by_key(|(name, _)| name.clone());
    let reasons: Vec<_> = why.iter().map(|(name, why)| (name.as_str(), &*why.reason)).collect();
    assert_eq!(
        reasons,
        [
            ("panic", "panicked"),
            ("retry", "failed"),
            ("silent", "timed_out"),
            ("slow", "timed_out"),
            ("undecodable", "undecodable")
        ]
    );
    assert_eq!(why[1].1.error, "the database is away");
    let report = running.stop().await;
    assert_eq!((report.failed, report.timed_out), (1, 2));
}

/// Two attempts are two calls of the handler. Then the message is a dead letter with the reason.
#[tokio::test(start_paused = true)]
async fn attempts_that_are_used_up_end_in_a_reject() {
    let script = with(Extensions::ALL, &[&["again", "b"]]);
    let republish = Republish { max_attempts: 2, ..Republish::default() };
    let settings = Settings { on_failure: OnFailure::Republish(republish), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        if name == "again" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("again", REJECT), ("b", OK)])]);
    assert_eq!(script.failures.lock().unwrap()[0].1.reason, "republish_exhausted");
    assert_eq!(script.forwarded.lock().unwrap().len(), 0);
    running.stop().await;
}

/// A message that was not started has not failed.
#[tokio::test(start_paused = true)]
async fn messages_that_did_not_start_are_released() {
    for (extensions, status) in [(Extensions::ALL, RELEASE), (Extensions::NONE, FAIL)] {
        let script = with(extensions, &[&["a", "b", "c"]]);
        let settings = Settings { ordering: Ordering::Batch, ..Settings::default() };
        // The first message leaves too little of the lease for the second.
        let running = Running::start(&script, settings, |name, _| async move {
            tokio::time::sleep(if name == "a" { SECOND * 27 } else { SECOND }).await;
            Ok(())
        });
        running.after(SECOND * 32).await;
        assert_eq!(script.acks(), [list(&[("a", OK), ("b", status)])], "{extensions:?}");
        let report = running.stop().await;
        assert_eq!((report.released, report.skipped), (if status == RELEASE { 2 } else { 0 }, 2));
    }
}

/// A handler that is stopped with its worker has not failed.
#[tokio::test(start_paused = true)]
async fn messages_that_a_stop_interrupts_are_released() {
    for ordering in [Ordering::None, Ordering::Batch, Ordering::by_attribute("key")] {
        let script = with(Extensions::ALL, &[&["a", "b"]]);
        let settings = Settings { ordering, grace: SECOND, ..Settings::default() };
        let running = Running::start(&script, settings, |_, _| std::future::pending());
        running.after(SECOND).await;
        let report = running.stop().await;
        assert_eq!(script.acks(), [list(&[("a", RELEASE)])]);
        assert_eq!((report.released, report.redelivered, report.drained), (2, 0, false));
        assert!(script.failures.lock().unwrap().is_empty());
    }
}

/// Without dead letters, a rejected message is redelivered with growing pauses.
#[tokio::test(start_paused = true)]
async fn a_rejected_message_without_dead_letters_is_redelivered_slowly() {
    let script = with(Extensions::ALL, &[]);
    let running = Running::on_queue(&script, Settings::default(), false, |_, _| async {
        Err(HandlerError::reject("no such account"))
    });
    for attempt in 1..=6 {
        let mut poison = message("poison");
        (poison.sequence, poison.attempt) = (Some(7), Some(attempt));
        script.push_message(poison);
        running.after(SECOND * 40).await;
    }
    let times = script.ack_times();
    let turns = (0..).map(|turn| SECOND * 40 * turn);
    let pauses: Vec<_> = times.iter().zip(turns).map(|(at, turn)| (*at - turn).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 29], "up to its lease");
    assert!(script.acks().iter().all(|ack| *ack == list(&[("poison", FAIL)])));
    running.stop().await;
}
