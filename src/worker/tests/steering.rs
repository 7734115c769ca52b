//! Changes of a running worker, and failures of its parts.

use tokio::sync::mpsc;

use super::*;

fn many(count: usize) -> Vec<&'static [&'static str]> {
    vec![&["x"]; count]
}

/// A worker whose handlers take a second.
fn slow(script: &Arc<Script>, settings: Settings) -> (Running, WorkerHandle) {
    let running = Running::start(script, settings, |_, _| async {
        tokio::time::sleep(SECOND).await;
        Ok(())
    });
    let handle = WorkerHandle(running.control.clone());
    (running, handle)
}

#[tokio::test(start_paused = true)]
async fn more_concurrency_means_more_polls() {
    let script = Script::new(&vec![&["x"; 10][..]; 100]);
    let (running, handle) = slow(&script, Settings { concurrency: 1, ..Settings::default() });
    running.after(SECOND * 2).await;
    assert_eq!(running.control.inflight.in_flight(), 1);
    handle.set_concurrency(100);
    running.after(SECOND * 3).await;
    assert_eq!(running.control.inflight.in_flight(), 100);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_messages_a_poll_asks_for_can_change() {
    let script = Script::new(&[]);
    let (running, handle) = slow(&script, Settings { poll_wait: SECOND, ..Settings::default() });
    running.after(SECOND * 3).await;
    handle.set_max_messages(MaxMessages::Fixed(3)).unwrap();
    assert!(handle.set_max_messages(MaxMessages::Fixed(11)).is_err());
    running.after(SECOND * 3).await;
    let asked: Vec<usize> = script.asked.lock().unwrap().iter().map(|(_, asked)| *asked).collect();
    assert_eq!((asked.first(), asked.last()), (Some(&10), Some(&3)));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_can_be_set_and_removed() {
    let script = Script::new(&many(300));
    let (running, handle) = slow(&script, Settings { concurrency: 500, ..Settings::default() });
    handle.set_rate_limit(Rate::try_new(5, SECOND).unwrap());
    running.after(SECOND * 10).await;
    let slowly = handle.status().counts.received;
    assert!((40..=55).contains(&slowly), "{slowly} in ten seconds");
    handle.set_rate_limit(None);
    running.after(SECOND * 2).await;
    assert_eq!(handle.status().counts.received, 300);
    running.stop().await;
}

/// A poll that has waited for capacity without a limit waits again under a new one.
#[tokio::test(start_paused = true)]
async fn a_new_rate_limit_holds_polls_that_waited_for_capacity() {
    let script = Script::new(&vec![&["x"; 10][..]; 100]);
    let (running, handle) = slow(&script, Settings { concurrency: 10, ..Settings::default() });
    running.after(SECOND / 2).await;
    assert_eq!(handle.status().counts.received, 10);
    handle.set_rate_limit(Rate::try_new(1, SECOND * 60).unwrap());
    running.after(SECOND * 59).await;
    assert_eq!(handle.status().counts.received, 10, "no burst");
    running.after(SECOND * 2).await;
    assert_eq!(handle.status().counts.received, 11);
    running.stop().await;
}

/// The limit of bytes, for which a poll counts as its largest reply.
#[tokio::test(start_paused = true)]
async fn the_limit_of_bytes_can_change() {
    let script = Script::new(&many(50));
    let (running, handle) = slow(&script, Settings { max_in_flight_bytes: 1, ..Settings::default() });
    running.after(SECOND * 4).await;
    assert!(handle.status().counts.received <= 5, "one at a time");
    handle.set_max_in_flight_bytes(64 << 20);
    running.after(SECOND * 4).await;
    assert_eq!(handle.status().counts.received, 50);
    running.stop().await;
}

/// A poll that waited for capacity when the worker was paused is not sent when there is capacity.
#[tokio::test(start_paused = true)]
async fn a_full_worker_that_is_paused_fetches_nothing_when_capacity_is_freed() {
    let script = Script::new(&many(2));
    let (running, handle) = slow(&script, Settings { concurrency: 1, ..Settings::default() });
    running.after(SECOND / 2).await;
    handle.pause();
    running.after(SECOND * 60).await;
    assert_eq!(handle.status().counts.received, 1);
    handle.resume();
    running.after(SECOND).await;
    assert_eq!(handle.status().counts.received, 2);
    running.stop().await;
}

/// A failure is reported at once, however long the rate limit holds the next poll back.
#[tokio::test(start_paused = true)]
async fn a_failing_acknowledgement_does_not_wait_for_the_rate_limit() {
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let rate = Rate::try_new(2, SECOND * 60).unwrap();
    let settings = Settings { rate_limit: Some(rate), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        tokio::time::sleep(SECOND).await;
        if name == "a" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND * 3).await;
    assert_eq!(script.acks(), [list(&[("a", FAIL)])]);
    running.stop().await;
}

/// Fetching more while acknowledgements are not answered would only make more of them late.
#[tokio::test(start_paused = true)]
async fn acknowledgements_that_fall_behind_hold_polls_back() {
    let script = Script::new(&[]);
    *script.ack_takes.lock().unwrap() = SECOND * 10;
    let settings = Settings { pollers: Some(1), concurrency: 1_000, ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    for _ in 0..40 {
        script.push(&["x"]);
        running.after(SECOND / 100).await;
    }
    // The poll in flight when the limit is reached still brings its batch.
    let sent = script.acks().len();
    assert!((16..=17).contains(&sent), "{sent} acknowledgements are under way");
    assert_eq!(running.control.counters.report(false).received, sent as u64);
    running.after(SECOND * 30).await;
    assert_eq!(running.stop().await.acknowledged, 0, "the script settles nothing");
    assert_eq!(script.acks().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn stopping_now_does_not_wait_for_handlers() {
    let script = Script::new(&[&["a", "b"]]);
    let running = Running::start(&script, Settings::default(), |name, _| async move {
        if name == "b" {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    running.after(SECOND).await;
    let handle = WorkerHandle(running.control.clone());
    let began = Instant::now();
    handle.stop();
    handle.stop_now();
    let report = running.stop().await;
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    assert_eq!((report.drained, report.done, report.interrupted), (false, 1, 1));
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", FAIL)])], "finished messages are acknowledged");
}

/// A poller that panics is restarted, later each time, and an idle worker stays cheap whichever poller it was.
#[tokio::test(start_paused = true)]
async fn the_successor_of_a_poller_that_panicked_waits_as_long() {
    let script = Script::new(&vec![&["x"; 10][..]; 40]);
    let (running, _) = slow(&script, Settings { concurrency: 100, ..Settings::default() });
    running.after(SECOND / 2).await;
    assert!(script.asked.lock().unwrap().len() > 1, "several polls are in flight");
    // The poller with the long wait panics when the queue is empty, while others wait shortly.
    script.deadly.store(1, SeqCst);
    running.after(SECOND * 60).await;
    assert_eq!(script.deadly.load(SeqCst), 0, "it died");
    let before = script.asked.lock().unwrap().len();
    running.after(SECOND * 200).await;
    assert_eq!(script.asked.lock().unwrap().len() - before, 10, "one poll every 20 s");
    assert_eq!(running.stop().await.done, 400);
}

#[tokio::test(start_paused = true)]
async fn pollers_that_keep_panicking_are_restarted_more_and_more_slowly() {
    let script = Script::new(&[]);
    script.deadly.store(5, SeqCst);
    let (running, handle) = slow(&script, Settings::default());
    running.after(SECOND / 10).await;
    assert!(handle.status().polling && handle.status().last_poll_age.is_none(), "no poll was answered");
    running.after(SECOND * 12).await;
    let times: Vec<Duration> = script.asked.lock().unwrap().iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= 6, "five died, and the next is answered: {times:?}");
    assert!(times[5] - times[4] > times[1] - times[0], "{times:?}");
    script.push(&["a"]);
    running.after(SECOND * 2).await;
    assert_eq!(running.stop().await.done, 1);
}

/// A key function is the user's code, too.
#[tokio::test(start_paused = true)]
async fn a_key_function_that_panics_loses_no_message() {
    let script = Script::new(&[&["a", "b"]]);
    let key: KeyFn = Arc::new(|delivery| {
        assert_ne!(delivery.json::<String>().ok().as_deref(), Some("a"), "planted");
        Some("key".to_owned())
    });
    let settings = Settings { ordering: Ordering::Key(key), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Ok(()) });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    running.stop().await;
}

/// While the worker waits for messages in flight, no poll is due, and an old one is no bad sign.
#[tokio::test(start_paused = true)]
async fn a_full_worker_is_not_polling() {
    let script = Script::new(&[&["a"]]);
    let (running, handle) = slow(&script, Settings { concurrency: 1, ..Settings::default() });
    running.after(SECOND / 2).await;
    assert!(!handle.status().polling);
    running.after(SECOND).await;
    assert!(handle.status().polling);
    running.stop().await;
}

/// Reports the events that its filter passes.
struct Told(mpsc::UnboundedSender<&'static str>);

impl Observer for Told {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        let name = match event {
            Event::Settled { .. } => "settled",
            Event::Skipped { .. } => "skipped",
            Event::Stuck { .. } => "stuck",
            _ => return,
        };
        // The test may have ended.
        let _ = self.0.send(name);
    }
}

/// A message that has not started when its batch is acknowledged must not take itself for an earlier run and wait for
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_message_not_started_when_its_batch_failed_does_not_wait_for_itself() {
    let script = Script::new(&[&["a", "b"]]);
    *script.extensions.lock().unwrap() = crate::client::Extensions::ALL;
    let (tell, mut told) = mpsc::unbounded_channel();
    let settings = Settings {
        unique_key: Some(UniqueKey::Attribute("key".into())),
        concurrency: 2,
        grace: SECOND * 5,
        ..Settings::default()
    };
    // The batch learns of the failure before the runtime gets to the second run, because the task that is woken last
    // runs first.
    let running = Running::observed(&script, settings, Some(Arc::new(Told(tell))), |name, _| async move {
        if name == "a" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    while told.recv().await.unwrap() != "settled" {}
    let report = running.stop().await;
    assert!(report.drained, "{report:?}");
    assert_eq!(report.interrupted, 0);
}

/// `FreePermit`: another message uses the capacity of a handler that blocks its thread.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_capacity_of_a_stuck_handler_can_be_released() {
    let script = Script::new(&[&["a"], &["b"]]);
    script.ends_polls();
    let (tell, mut told) = mpsc::unbounded_channel();
    let (release, blocked) = std::sync::mpsc::channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let settings = Settings {
        concurrency: 1,
        on_stuck: OnStuck::FreePermit,
        ack_wait: Duration::from_millis(200).into(),
        ..Settings::default()
    };
    let running = Running::observed(&script, settings, Some(Arc::new(Told(tell))), move |name, _| {
        let blocked = blocked.clone();
        async move {
            if name == "a" {
                blocked.lock().unwrap().recv().unwrap();
            }
            Ok(())
        }
    });
    let mut events = Vec::new();
    // The second message is fetched although the first one has not ended.
    while events.iter().filter(|event| **event == "settled").count() < 2 {
        events.push(told.recv().await.unwrap());
    }
    assert!(events.contains(&"stuck"), "{events:?}");
    assert_eq!(running.control.stuck.load(SeqCst), 1);
    release.send(()).unwrap();
    let control = running.control.clone();
    let report = running.stop().await;
    assert_eq!((report.stuck, control.stuck.load(SeqCst), control.inflight.in_flight()), (1, 0, 0));
}

/// A handler that blocks past its lease is not joined by a second one for the same message, in order or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_whose_handler_blocks_past_its_lease_is_not_run_a_second_time_meanwhile() {
    for ordering in [Ordering::Batch, Ordering::None] {
        let script = Script::new(&[&["a"]]);
        script.ends_polls();
        let (tell, mut told) = mpsc::unbounded_channel();
        let (release, blocked) = std::sync::mpsc::channel();
        let blocked = Arc::new(Mutex::new(blocked));
        let calls = Arc::new(AtomicUsize::new(0));
        let settings = Settings {
            ordering,
            unique_key: Some(UniqueKey::Attribute("key".into())),
            ack_wait: Duration::from_millis(200).into(),
            ..Settings::default()
        };
        let counted = calls.clone();
        let running = Running::observed(&script, settings, Some(Arc::new(Told(tell))), move |_, _| {
            let (blocked, first) = (blocked.clone(), counted.fetch_add(1, SeqCst) == 0);
            async move {
                if first {
                    blocked.lock().unwrap().recv().unwrap();
                }
                Ok(())
            }
        });
        let mut until_settled = async || while told.recv().await.unwrap() != "settled" {};
        until_settled().await;
        script.push(&["a"]);
        until_settled().await;
        assert_eq!(calls.load(SeqCst), 1, "the first run goes on");
        release.send(()).unwrap();
        script.push(&["a"]);
        until_settled().await;
        let waits = AckStatus::Release;
        assert_eq!(script.acks(), [list(&[("a", FAIL)]), list(&[("a", waits)]), list(&[("a", OK)])]);
        assert_eq!(calls.load(SeqCst), 1, "all before it was done, so its late success counts");
        running.stop().await;
    }
}
