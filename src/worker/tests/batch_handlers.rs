//! Batch handlers: which messages share a call, when it starts, and what its end means for each message.

use super::*;

/// The calls of a batch handler: when each started, and its messages.
type Calls = Arc<Mutex<Vec<(Duration, Vec<String>)>>>;

/// The result for one message.
type One = Result<(), HandlerError>;

/// Starts a worker whose batch handler records its calls and returns the results of `answer`.
fn start<F, Fut>(script: &Arc<Script>, settings: Settings, answer: F) -> (Running, Calls)
where
    F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<One>, HandlerError>> + Send + 'static,
{
    let calls = Calls::default();
    let (seen, began) = (calls.clone(), script.began);
    let handler = batch_handler_fn(move |deliveries: Vec<Delivery>| {
        let names: Vec<String> = deliveries.iter().map(|delivery| delivery.json().unwrap()).collect();
        seen.lock().unwrap().push((began.elapsed(), names.clone()));
        answer(names)
    });
    (Running::handling(script, settings, None, HandlerKind::Batch(Arc::new(handler))), calls)
}

fn names(calls: &Calls) -> Vec<Vec<String>> {
    calls.lock().unwrap().iter().map(|(_, names)| names.clone()).collect()
}

fn collected(collect: Collect) -> Settings {
    Settings { batching: Some(Batching::Collected(collect)), concurrency: 100, ..Settings::default() }
}

/// Lets time pass until this number of acknowledgements was sent.
async fn until_acknowledged(script: &Script, batches: usize) {
    while script.acks().len() < batches {
        tokio::time::sleep(SECOND / 100).await;
    }
}

async fn all_done(names: Vec<String>) -> Result<Vec<One>, HandlerError> {
    Ok(names.iter().map(|_| Ok(())).collect())
}

/// Invariants 1 and 2 with one call for a consumed batch: each message by its own result.
#[tokio::test(start_paused = true)]
async fn a_consumed_batch_is_one_call_with_a_verdict_for_each() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let settings = Settings { on_reject: OnReject::Park("parked".into()), ..Settings::default() };
    let (running, calls) = start(&script, settings, |names| async move {
        tokio::time::sleep(SECOND).await;
        let verdict = |name: &String| match name.as_str() {
            "a" => Err(HandlerError::reject("never")),
            "b" => Ok(()),
            _ => Err(HandlerError::retry("not yet")),
        };
        Ok(names.iter().map(verdict).collect())
    });
    running.after(SECOND * 3).await;
    assert_eq!(*calls.lock().unwrap(), [(Duration::ZERO, vec!["a".to_owned(), "b".into(), "c".into()])]);
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK), ("c", FAIL)])]);
    assert_eq!(script.forwarded.lock().unwrap()[0].attributes.get_str(REASON).as_deref(), Some("rejected"));
    let report = running.stop().await;
    assert_eq!((report.rejected, report.done, report.failed), (1, 1, 1));
}

/// However a call fails as a whole, none of its messages is done.
#[tokio::test(start_paused = true)]
async fn a_call_that_fails_as_a_whole_fails_each_of_its_messages() {
    for case in ["error", "panic", "too few verdicts", "hangs"] {
        let script = Script::new(&[&["a", "b"]]);
        let (running, _) = start(&script, Settings::default(), move |names| async move {
            match case {
                "error" => Err(HandlerError::retry("the table is locked")),
                "panic" => panic!("planted"),
                "hangs" => std::future::pending().await,
                _ => Ok(names.iter().skip(1).map(|_| Ok(())).collect()),
            }
        });
        running.after(SECOND * 35).await;
        assert_eq!(script.acks(), [list(&[("a", FAIL)])], "{case}");
        let report = running.stop().await;
        let counts = (report.failed, report.panicked, report.timed_out);
        let expected = match case {
            "panic" => (0, 2, 0),
            "hangs" => (0, 0, 2),
            _ => (2, 0, 0),
        };
        assert_eq!((counts, report.done), (expected, 0), "{case}");
    }
}

/// A wrong number of results is an error that says so.
#[tokio::test(start_paused = true)]
async fn a_wrong_number_of_verdicts_is_an_error_that_says_so() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { on_failure: OnFailure::Republish(Republish::default()), ..Settings::default() };
    let (running, _) = start(&script, settings, |_| async { Ok(vec![Ok(()); 3]) });
    running.after(SECOND).await;
    let copy = script.forwarded.lock().unwrap()[0].clone();
    let error = copy.attributes.get_str(ERROR).unwrap().into_owned();
    assert!(error.contains("3 results for 2 messages"), "{error}");
    running.stop().await;
}

/// Invariant 4: messages that failed together are called one by one when they are redelivered, so that one message
/// cannot make the others fail twice.
#[tokio::test(start_paused = true)]
async fn after_a_call_that_panicked_its_messages_are_called_one_by_one() {
    let script = Script::new(&[&["a", "b"], &["c"]]);
    let settings = collected(Collect { max_messages: 3, linger: SECOND, ..Collect::default() });
    let (running, calls) = start(&script, settings, |names| async move {
        assert!(names.len() == 1 || !names.contains(&"b".to_owned()), "planted");
        all_done(names).await
    });
    until_acknowledged(&script, 2).await;
    script.push(&["a", "b", "c"]);
    running.after(SECOND * 5).await;
    let first = names(&calls).remove(0);
    assert_eq!(first.len(), 3, "{first:?}");
    assert_eq!(names(&calls)[1..], [["a"], ["b"], ["c"]]);
    assert_eq!(running.stop().await.done, 3);
}

/// A copy that failed before does not share a call.
#[tokio::test(start_paused = true)]
async fn a_message_that_failed_before_has_a_call_to_itself() {
    let script = Script::new(&[&["a", "again", "b"]]);
    let (running, calls) = start(&script, Settings::default(), all_done);
    running.after(SECOND).await;
    let mut calls = names(&calls);
    calls.sort();
    assert_eq!(calls, [vec!["a", "b"], vec!["again"]]);
    assert_eq!(script.acks(), [list(&[("a", OK), ("again", OK), ("b", OK)])]);
    running.stop().await;
}

/// A call collects messages across polls until there are enough. Each consumed batch keeps its own acknowledgement.
#[tokio::test(start_paused = true)]
async fn batches_are_collected_across_polls_by_count() {
    let script = Script::new(&[&["a", "b"], &["c", "d"], &["e"]]);
    let collect = Collect { max_messages: 4, linger: SECOND * 5, ..Collect::default() };
    let (running, calls) = start(&script, collected(collect), all_done);
    running.after(SECOND * 6).await;
    let calls = calls.lock().unwrap().clone();
    assert_eq!(
        calls.iter().map(|(at, names)| (*at, names.len())).collect::<Vec<_>>(),
        [(Duration::ZERO, 4), (SECOND * 5, 1)]
    );
    assert_eq!(script.acks().len(), 3, "one acknowledgement for each consumed batch");
    assert_eq!(running.stop().await.done, 5);
}

#[tokio::test(start_paused = true)]
async fn batches_are_collected_by_bytes() {
    // A body of one letter is three bytes of JSON.
    let script = Script::new(&[&["a", "b", "c"]]);
    let collect = Collect { max_bytes: 7, linger: SECOND * 5, ..Collect::default() };
    let (running, calls) = start(&script, collected(collect), all_done);
    running.after(SECOND * 6).await;
    assert_eq!(names(&calls), [vec!["a", "b"], vec!["c"]], "a third one would be too much");
    running.stop().await;
}

/// Invariant 3: the wait for a batch leaves the handler enough time to finish within the lease.
#[tokio::test(start_paused = true)]
async fn the_lease_ends_the_wait_for_a_batch_that_does_not_fill() {
    for (timeout, expected) in [(None, 14), (Some(SECOND * 8), 21)] {
        let script = Script::new(&[&["a"]]);
        let settings =
            Settings { handler_timeout: timeout, ..collected(Collect { linger: SECOND * 28, ..Collect::default() }) };
        let (running, calls) = start(&script, settings, all_done);
        running.after(SECOND * 40).await;
        assert_eq!(*calls.lock().unwrap(), [(SECOND * expected, vec!["a".to_owned()])], "timeout {timeout:?}");
        assert_eq!(script.acks(), [list(&[("a", OK)])]);
        running.stop().await;
    }
}

/// Invariant 7: no more messages arrive after the signal, so the call does not wait for them.
#[tokio::test(start_paused = true)]
async fn a_shutdown_starts_the_call_that_is_being_collected() {
    let script = Script::new(&[&["a", "b"]]);
    let (running, calls) = start(&script, collected(Collect { linger: SECOND * 10, ..Collect::default() }), all_done);
    running.after(SECOND).await;
    assert!(names(&calls).is_empty());
    let report = running.stop().await;
    assert_eq!((report.done, report.drained, script.began.elapsed()), (2, true, SECOND));
}

/// Invariant 2: once its batch is acknowledged, a message that still waits for others must not start.
#[tokio::test(start_paused = true)]
async fn a_message_whose_batch_is_acknowledged_leaves_the_call_it_waits_for() {
    let script = Script::new(&[&["again", "b"]]);
    let settings = collected(Collect { linger: SECOND * 10, ..Collect::default() });
    let (running, calls) = start(&script, settings, |_| async { Err(HandlerError::retry("no")) });
    running.after(SECOND * 20).await;
    assert_eq!(names(&calls), [["again"]]);
    assert_eq!(script.acks(), [list(&[("again", FAIL)])]);
    assert_eq!(running.stop().await.skipped, 1);
}

/// Invariant 5: messages that wait for their batch are in flight.
#[tokio::test(start_paused = true)]
async fn messages_that_wait_for_their_batch_are_in_flight() {
    let script = Script::new(&[&["a", "b"], &["c", "d"], &["e", "f"]]);
    let collect = Collect { max_messages: 4, linger: SECOND * 5, ..Collect::default() };
    let settings = Settings { concurrency: 4, ..collected(collect) };
    let (running, calls) = start(&script, settings, |names| async move {
        tokio::time::sleep(SECOND).await;
        all_done(names).await
    });
    running.after(SECOND / 2).await;
    assert_eq!(running.control.inflight.in_flight(), 4);
    assert_eq!(running.control.counters.report(false).received, 4);
    running.after(SECOND * 10).await;
    assert_eq!(names(&calls).len(), 2);
    assert_eq!(running.stop().await.done, 6);
}

/// An ordered batch is one call. Messages after its first failure are redelivered, done or not, so that the order
/// holds.
#[tokio::test(start_paused = true)]
async fn an_ordered_batch_is_one_call_and_its_order_holds() {
    let script = Script::new(&[&["a", "b", "c"]]);
    let settings = Settings {
        ordering: Ordering::Batch,
        unique_key: Some(UniqueKey::Attribute("key".into())),
        ..collected(Collect { linger: SECOND * 10, ..Collect::default() })
    };
    let failed = AtomicUsize::new(0);
    let (running, calls) = start(&script, settings, move |names| {
        let fails = failed.fetch_add(1, SeqCst) == 0;
        let verdict = move |name: String| if fails && name == "b" { Err(HandlerError::retry("no")) } else { Ok(()) };
        async move { Ok(names.into_iter().map(verdict).collect()) }
    });
    until_acknowledged(&script, 1).await;
    script.push(&["b", "c"]);
    running.after(SECOND * 5).await;
    assert_eq!(names(&calls), [vec!["a", "b", "c"], vec!["b"], vec!["c"]]);
    running.stop().await;
}

/// With ordering by key, a call has at most one message of a key, and the next one waits for its end.
#[tokio::test(start_paused = true)]
async fn a_call_holds_one_message_of_a_key() {
    for batching in [Batching::Consumed, Batching::Collected(Collect { linger: SECOND / 10, ..Collect::default() })] {
        let script = Script::new(&[&["a1", "b1", "a2"]]);
        let settings = Settings {
            ordering: Ordering::by_attribute("key"),
            batching: Some(batching),
            concurrency: 100,
            ..Settings::default()
        };
        let (running, calls) = start(&script, settings, |names| async move {
            tokio::time::sleep(SECOND).await;
            all_done(names).await
        });
        running.after(SECOND * 4).await;
        assert_eq!(names(&calls), [vec!["a1", "b1"], vec!["a2"]], "{batching:?}");
        assert_eq!(script.acks(), [list(&[("a1", OK), ("b1", OK), ("a2", OK)])]);
        running.stop().await;
    }
}

/// Finished work after a failure is acknowledged without another call, and no message waits for it.
#[tokio::test(start_paused = true)]
async fn remembered_messages_are_in_no_call() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { unique_key: Some(UniqueKey::Attribute("key".into())), ..Settings::default() };
    let failed = AtomicUsize::new(0);
    let (running, calls) = start(&script, settings, move |names| {
        let first = failed.fetch_add(1, SeqCst) == 0;
        let verdict = move |name: String| if first && name == "a" { Err(HandlerError::retry("no")) } else { Ok(()) };
        async move { Ok(names.into_iter().map(verdict).collect()) }
    });
    until_acknowledged(&script, 1).await;
    script.push(&["a", "b"]);
    running.after(SECOND * 5).await;
    assert_eq!(names(&calls), [vec!["a", "b"], vec!["a"]]);
    assert_eq!(running.stop().await.remembered, 1);
}
