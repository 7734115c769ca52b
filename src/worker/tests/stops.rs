//! Stops and pauses with polls in flight, on a service that can end them and on one that cannot.

use super::*;
use crate::client::Extensions;

const RELEASE: AckStatus = AckStatus::Release;
/// When the first poll, which is short, has been answered and a long one is in flight.
const LONG_POLL: Duration = Duration::from_millis(1500);

/// A way to hold a worker back.
type Hold = fn(&WorkerHandle) -> Option<ConcurrencyCap>;

fn script(extensions: Extensions) -> Arc<Script> {
    let script = Script::new(&[]);
    *script.extensions.lock().unwrap() = extensions;
    script
}

fn done(script: &Arc<Script>, settings: Settings) -> Running {
    Running::start(script, settings, |_, _| async { Ok(()) })
}

/// The poll is ended and its reply is awaited, so that nothing is leased to a connection that nobody reads.
#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_polls_and_waits_for_their_answers() {
    let script = script(Extensions::ALL);
    let running = done(&script, Settings::default());
    running.after(LONG_POLL).await;
    assert_eq!(script.out.load(SeqCst), 1);
    let began = Instant::now();
    let report = running.stop().await;
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert!(report.drained && report.polls_given_up == 0 && script.abandoned.load(SeqCst) == 0);
    assert_eq!(script.ended.lock().unwrap().len(), 1);
}

/// A message that was leased while the worker stopped is handed back at once, without a failure.
#[tokio::test(start_paused = true)]
async fn messages_of_the_last_poll_are_handed_back() {
    let script = script(Extensions::ALL);
    *script.answer_takes.lock().unwrap() = SECOND;
    let running = done(&script, Settings::default());
    running.after(SECOND).await;
    script.push(&["a", "b"]);
    running.after(SECOND / 2).await;
    let report = running.stop().await;
    assert_eq!(script.acks(), [list(&[("a", RELEASE)])]);
    assert_eq!((report.received, report.done, report.released, report.skipped), (2, 0, 2, 2));
    assert!(report.drained && script.abandoned.load(SeqCst) == 0);
}

/// Without the extensions the poll is waited for, and its messages are handled.
#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_end_polls_is_waited_for() {
    let script = script(Extensions::NONE);
    let running = done(&script, Settings::default());
    running.after(LONG_POLL).await;
    let late = script.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND * 10).await;
        late.push(&["a"]);
    });
    let began = Instant::now();
    let report = running.stop().await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(script.acks(), [list(&[("a", OK)])]);
    assert!(report.drained && report.done == 1 && script.abandoned.load(SeqCst) == 0);
}

/// The worker waits for polls within the grace period only, and the report counts those it gives up.
#[tokio::test(start_paused = true)]
async fn polls_that_outlast_the_grace_period_are_given_up_and_reported() {
    for (extensions, longest) in [(Extensions::NONE, 5), (Extensions::ALL, 7)] {
        let script = script(extensions);
        script.deaf.store(usize::MAX, SeqCst);
        let running = done(&script, Settings { grace: SECOND * 5, ..Settings::default() });
        running.after(LONG_POLL).await;
        let began = Instant::now();
        let report = running.stop().await;
        assert_eq!((began.elapsed().as_secs(), report.polls_given_up, report.drained), (longest, 1, false));
        assert_eq!(script.abandoned.load(SeqCst), 1);
    }
}

/// A request to end polls may be lost, so it is repeated.
#[tokio::test(start_paused = true)]
async fn a_lost_request_to_end_polls_is_repeated() {
    let script = script(Extensions::ALL);
    script.deaf.store(2, SeqCst);
    let running = done(&script, Settings::default());
    running.after(LONG_POLL).await;
    let report = running.stop().await;
    assert!(report.drained && script.abandoned.load(SeqCst) == 0);
    assert_eq!(script.ended.lock().unwrap().len(), 2, "the first was lost");
}

/// A stop without a grace period still takes the time to end its polls.
#[tokio::test(start_paused = true)]
async fn a_stop_that_is_cut_short_ends_its_polls_too() {
    let script = script(Extensions::ALL);
    *script.answer_takes.lock().unwrap() = SECOND / 4;
    let running = done(&script, Settings::default());
    running.after(SECOND).await;
    script.push(&["a"]);
    tokio::task::yield_now().await;
    running.control.interrupt.cancel();
    let report = running.stop().await;
    assert_eq!(script.acks(), [list(&[("a", RELEASE)])]);
    assert_eq!((report.released, report.polls_given_up, script.abandoned.load(SeqCst)), (1, 0, 0));
}

/// While a worker is held back, no poll waits for messages, and messages that still arrive are handed back.
#[tokio::test(start_paused = true)]
async fn a_pause_ends_the_polls_and_hands_back_what_they_bring() {
    let holds: [(&str, Hold); 3] = [
        ("pause", |handle| {
            handle.pause();
            None
        }),
        ("concurrency", |handle| {
            handle.set_concurrency(0);
            None
        }),
        ("cap", |handle| Some(handle.cap_concurrency(0))),
    ];
    for (name, hold) in holds {
        let script = script(Extensions::ALL);
        *script.answer_takes.lock().unwrap() = SECOND;
        let running = done(&script, Settings::default());
        let handle = WorkerHandle(running.control.clone());
        running.after(SECOND).await;
        script.push(&["a"]);
        running.after(SECOND / 2).await;
        let guard = hold(&handle);
        running.after(SECOND * 5).await;
        assert_eq!(script.acks(), [list(&[("a", RELEASE)])], "{name}");
        assert_eq!(script.out.load(SeqCst), 0, "{name}: nothing is fetched");
        script.push(&["a"]);
        drop(guard);
        handle.set_concurrency(32);
        handle.resume();
        running.after(SECOND * 5).await;
        assert_eq!(script.acks()[1..], [list(&[("a", OK)])], "{name}");
        running.stop().await;
    }
}

/// A failing acknowledgement ends the long poll that it would wait for.
#[tokio::test(start_paused = true)]
async fn a_failing_acknowledgement_does_not_wait_for_a_long_poll() {
    let script = Script::new(&[&["a"], &[]]);
    *script.extensions.lock().unwrap() = Extensions::ALL;
    // The first poller waits long for a whole batch, because nothing is in flight. Then another one brings a failure.
    let isolation = Settings { max_messages: MaxMessages::Fixed(10), ..Settings::default() };
    let running = Running::start(&script, isolation, |_, _| async {
        tokio::time::sleep(SECOND / 10).await;
        Err(HandlerError::retry("no"))
    });
    let out = running.context.polling.in_flight.begin(true);
    let pass = running.context.isolation.admit(10).await;
    running.after(SECOND).await;
    assert_eq!(script.acks(), [] as [Vec<(String, AckStatus)>; 0], "a wide poll is in flight");
    assert!(script.ended.lock().unwrap().iter().any(|ended| *ended == out.id.as_str()));
    drop((out, pass));
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)])]);
    running.stop().await;
}
