//! Failure policies: parked, undecodable, deferred and republished messages.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

/// Invariant 8: an undecodable body is a reject, to which the policy applies.
#[tokio::test(start_paused = true)]
async fn a_rejected_message_is_parked_with_its_reason_and_acknowledged() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { on_reject: OnReject::Park("parked".into()), ..Settings::default() };
    let running = Running::start(&script, settings, |name, delivery| async move {
        if name == "a" { delivery.json::<u32>().map(drop) } else { Ok(()) }
    });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    assert_eq!(copy.body, Body::json("a").unwrap());
    assert_eq!(copy.attributes.get_str(REASON).as_deref(), Some("undecodable"));
    assert_eq!(copy.attributes.get_u64(ATTEMPTS), Some(1));
    assert!(copy.attributes.get_str(ERROR).unwrap().contains("cannot be decoded"));
    assert_eq!(running.stop().await.rejected, 1);
}

/// The policy for undecodable bodies is independent: they are discarded or retried while other rejects are parked.
#[tokio::test(start_paused = true)]
async fn undecodable_bodies_have_a_policy_of_their_own() {
    let policies = [
        (OnUndecodable::Own(OnReject::Discard), OK, None),
        (OnUndecodable::Own(OnReject::Park("broken".into())), OK, Some("undecodable")),
        (OnUndecodable::Own(OnReject::Fail), FAIL, None),
        (OnUndecodable::Retry, OK, Some("undecodable")),
    ];
    for (on_undecodable, status, copied) in policies {
        let script = Script::new(&[&["a"]]);
        let settings = Settings {
            on_failure: OnFailure::Republish(Republish::default()),
            on_reject: OnReject::Park("parked".into()),
            on_undecodable: on_undecodable.clone(),
            ..Settings::default()
        };
        let running = Running::start(&script, settings, |_, delivery| async move { delivery.json::<u32>().map(drop) });
        running.after(SECOND * 3).await;
        assert_eq!(script.acks(), [list(&[("a", status)])], "{on_undecodable:?}");
        let copies = script.forwarded.lock().unwrap().clone();
        let reasons: Vec<_> = copies.iter().map(|copy| copy.attributes.get_str(REASON).unwrap().into_owned()).collect();
        assert_eq!(reasons, Vec::from_iter(copied), "{on_undecodable:?}");
        running.stop().await;
    }
}

/// A message that cannot be read fails alone. The other messages are handled, and no handler is called with it.
#[tokio::test(start_paused = true)]
async fn an_unreadable_message_is_treated_as_undecodable() {
    let policies = [
        (OnUndecodable::Own(OnReject::Discard), vec![("a", OK), ("torn", OK), ("b", OK)], None),
        (
            OnUndecodable::Own(OnReject::Park("broken".into())),
            vec![("a", OK), ("torn", OK), ("b", OK)],
            Some("undecodable"),
        ),
        (OnUndecodable::Own(OnReject::Fail), vec![("a", OK), ("torn", FAIL)], None),
        (OnUndecodable::Retry, vec![("a", OK), ("torn", FAIL)], None),
    ];
    for (on_undecodable, expected, parked) in policies {
        let script = Script::new(&[&["a", "torn", "b"]]);
        let settings = Settings {
            on_failure: OnFailure::Republish(Republish::default()),
            on_undecodable: on_undecodable.clone(),
            ..Settings::default()
        };
        let running = Running::start(&script, settings, |_, _| async { Ok(()) });
        running.after(SECOND * 3).await;
        let acks = script.acks().concat();
        assert_eq!(acks[..expected.len()], list(&expected), "{on_undecodable:?}");
        let copies = script.forwarded.lock().unwrap().clone();
        assert_eq!(copies.len(), usize::from(parked.is_some()), "{on_undecodable:?}");
        for copy in copies {
            assert_eq!(copy.body.parse::<String>().unwrap(), "{\"body\":", "its text is parked");
            assert_eq!(copy.attributes.get_str(REASON).as_deref(), parked);
            assert!(copy.attributes.get_str(ERROR).unwrap().contains("cannot be read: the text ends"));
        }
        running.stop().await;
    }
}

/// A deferral is not a failure, so its copy carries no history.
#[tokio::test(start_paused = true)]
async fn a_deferred_message_is_sent_again_as_it_was() {
    let script = Script::new(&[&["a"]]);
    let running = Running::start(&script, Settings::default(), |_, _| async { Err(HandlerError::defer(SECOND * 7)) });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    let mut attributes = copy.attributes.clone();
    assert!(attributes.remove(DEFERRED).is_some());
    assert_eq!((copy.delay, attributes), (SECOND * 7, message("a").attributes));
    assert_eq!(running.stop().await.deferred, 1);
}

/// Republish: a delayed copy with an attempt count replaces the message, and no message after it fails.
#[tokio::test(start_paused = true)]
async fn a_republished_message_holds_no_other_back() {
    let script = Script::new(&[&["a", "b"]]);
    let settings = Settings { on_failure: OnFailure::Republish(Republish::default()), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        if name == "a" { Err(HandlerError::retry("not yet")) } else { Ok(()) }
    });
    running.after(SECOND).await;
    assert_eq!(script.acks(), [list(&[("a", OK), ("b", OK)])]);
    let copy = script.forwarded.lock().unwrap()[0].clone();
    assert!(copy.delay >= SECOND / 2 && copy.delay <= SECOND, "{:?}", copy.delay);
    assert_eq!(copy.attributes.get_u64(ATTEMPTS), Some(1));
    for (name, value) in [(REASON, "failed"), (ERROR, "not yet"), (WORKER, "test"), (ORIGIN, "q")] {
        assert_eq!(copy.attributes.get_str(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(copy.attributes.get_str(FIRST_FAILURE), copy.attributes.get_str(LAST_FAILURE));
    running.stop().await;
}

/// Messages that fail together, because a dependency is down, are not redelivered together.
#[tokio::test(start_paused = true)]
async fn the_delays_of_republished_messages_are_spread() {
    fastrand::seed(7);
    let script = Script::new(&[&["a", "b", "c", "d", "e", "f", "g", "h"]]);
    let settings = Settings { on_failure: OnFailure::Republish(Republish::default()), ..Settings::default() };
    let running = Running::start(&script, settings, |_, _| async { Err(HandlerError::retry("the database is down")) });
    running.after(SECOND).await;
    let mut delays: Vec<_> = script.forwarded.lock().unwrap().iter().map(|copy| copy.delay.as_millis()).collect();
    assert!(delays.iter().all(|delay| (500..=1_000).contains(delay)), "{delays:?}");
    delays.sort_unstable();
    delays.dedup();
    assert!(delays.len() >= 6 && delays[delays.len() - 1] - delays[0] > 200, "{delays:?}");
    running.stop().await;
}

/// A limit of the worker's own ends the attempts of a message, however it fails. Its copy says how many there were.
#[tokio::test(start_paused = true)]
async fn a_message_that_keeps_failing_is_parked_after_the_attempts_of_the_worker() {
    let script = Script::new(&[&["a", "poison"], &["poison"], &["poison", "b"]]);
    let on_reject = OnReject::Park("parked".into());
    let settings = Settings { max_attempts: Some(3), on_reject, pollers: Some(1), ..Settings::default() };
    let running = Running::start(&script, settings, |name, _| async move {
        if name == "poison" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND * 60).await;
    let mut acks = script.acks();
    acks.sort_by_key(|lines| lines[0].0.clone());
    assert_eq!(acks[0], list(&[("a", OK), ("poison", FAIL)]));
    let poison: Vec<_> = acks[1..].concat().into_iter().filter(|(name, _)| name == "poison").collect();
    assert_eq!(poison.iter().filter(|(_, status)| *status == FAIL).count(), 1);
    assert_eq!(poison.iter().filter(|(_, status)| *status == OK).count(), 1, "it is acknowledged once");
    let copies = script.forwarded.lock().unwrap().clone();
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].attributes.get_u64(ATTEMPTS), Some(3));
    assert_eq!(copies[0].attributes.get_str(REASON).as_deref(), Some("failed"));
    running.stop().await;
}

/// A success ends the count, so that failures which are far apart never add up.
#[tokio::test(start_paused = true)]
async fn a_success_forgets_the_failures_of_a_message() {
    let script = Script::new(&[&["a"], &["a"], &["a"], &["a"]]);
    let on_reject = OnReject::Park("parked".into());
    let settings = Settings { max_attempts: Some(2), on_reject, pollers: Some(1), ..Settings::default() };
    let calls = AtomicUsize::new(0);
    let running = Running::start(&script, settings, move |_, _| {
        let fails = calls.fetch_add(1, Relaxed).is_multiple_of(2);
        async move { if fails { Err(HandlerError::retry("no")) } else { Ok(()) } }
    });
    running.after(SECOND * 60).await;
    let statuses: Vec<_> = script.acks().concat().into_iter().map(|(_, status)| status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == FAIL).count(), 2, "{statuses:?}");
    assert!(script.forwarded.lock().unwrap().is_empty());
    running.stop().await;
}
