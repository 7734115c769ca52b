//! What the worker remembers of messages that were passed on: nothing that would lose their copies.

use super::*;

fn at(name: &'static str, place: u64) -> ReceivedMessage {
    let mut message = message(name);
    message.sequence = Some(place);
    message
}

/// The delivery of a copy that was sent, with or without the history in its attributes.
fn copy(script: &Script, with_history: bool) -> ReceivedMessage {
    let copy = script.forwarded.lock().unwrap().first().expect("a copy").clone();
    let mut again = at("a", 9);
    if with_history {
        again.attributes = copy.attributes;
    }
    again
}

/// A copy keeps the id of its message, and so does a copy of the copy.
#[tokio::test(start_paused = true)]
async fn copies_keep_the_id_of_their_message() {
    for way in ways() {
        let script = Script::new(&[]);
        let (running, _) = passing_on(&script, way);
        let mut first = at("a", 1);
        first.id = Some(crate::message::MessageId::new("m_RjkDiiQaIPJBFSAAAAAAAR"));
        script.push_message(first);
        tokio::time::sleep(SECOND).await;
        let copy = script.forwarded.lock().unwrap().first().expect("a copy").clone();
        assert_eq!(copy.attributes.get_str("dms-message-id").as_deref(), Some("m_RjkDiiQaIPJBFSAAAAAAAR"));
        running.stop().await;
    }
}

/// A way in which messages are passed on.
struct Way {
    settings: Settings,
    /// The error that passes a message on.
    passes_on: fn() -> HandlerError,
    fails: fn() -> HandlerError,
    /// Whether the copy carries a history in its attributes.
    with_history: bool,
}

/// The delayed copy of a failure, the copy of a deferred message, and a parked message that is sent back.
fn ways() -> [Way; 3] {
    let by_attribute = Settings { unique_key: Some(UniqueKey::Attribute("key".into())), ..Settings::default() };
    let on_failure = OnFailure::Republish(Republish::default());
    let on_reject = OnReject::Park("attic".into());
    let (retry, reject): (fn() -> _, fn() -> _) = (|| HandlerError::retry("no"), || HandlerError::reject("no"));
    [
        Way {
            settings: Settings { on_failure, ..by_attribute.clone() },
            passes_on: retry,
            fails: reject,
            with_history: true,
        },
        Way {
            settings: by_attribute.clone(),
            passes_on: || HandlerError::defer(SECOND),
            fails: retry,
            with_history: true,
        },
        Way { settings: Settings { on_reject, ..by_attribute }, passes_on: reject, fails: retry, with_history: false },
    ]
}

/// Starts a worker whose handler passes `a` on the first time, fails `first` after a second, and takes long for `slow`.
/// Also returns how often `a` was handled.
fn passing_on(script: &Arc<Script>, way: Way) -> (Running, Arc<AtomicUsize>) {
    let Way { settings, passes_on, fails, .. } = way;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let running = Running::start(script, settings, move |name, _| {
        let is_first = name == "a" && counted.fetch_add(1, SeqCst) == 0;
        async move {
            match name.as_str() {
                "a" if is_first => Err(passes_on()),
                "first" => {
                    tokio::time::sleep(SECOND).await;
                    Err(fails())
                }
                "slow" => {
                    tokio::time::sleep(SECOND * 10).await;
                    Ok(())
                }
                _ => Ok(()),
            }
        }
    });
    (running, calls)
}

/// The batch of the message is not acknowledged yet when its copy arrives, which has the same unique attribute.
#[tokio::test(start_paused = true)]
async fn a_copy_is_handled_while_its_original_waits_for_its_acknowledgement() {
    for way in ways() {
        let script = Script::new(&[]);
        script.push_batch(vec![at("a", 1), at("slow", 2)]);
        let with_history = way.with_history;
        let (running, calls) = passing_on(&script, way);
        running.after(SECOND * 3).await;
        script.push_message(copy(&script, with_history));
        running.after(SECOND * 3).await;
        assert_eq!(calls.load(SeqCst), 2, "acknowledged without a run, the copy would be lost");
        running.stop().await;
    }
}

/// The message is after a failure, so it is redelivered. The redelivery is not handled again, but the copy is.
#[tokio::test(start_paused = true)]
async fn a_copy_is_handled_and_the_redelivery_of_its_original_is_not() {
    for way in ways() {
        let script = Script::new(&[]);
        script.push_batch(vec![at("first", 1), at("a", 2)]);
        let with_history = way.with_history;
        let (running, calls) = passing_on(&script, way);
        running.after(SECOND * 5).await;
        script.push_message(at("a", 2));
        running.after(SECOND * 5).await;
        assert_eq!(
            (calls.load(SeqCst), running.control.counters.report(true).remembered),
            (1, 1),
            "one copy is enough"
        );
        script.push_message(copy(&script, with_history));
        running.after(SECOND * 5).await;
        assert_eq!(calls.load(SeqCst), 2, "acknowledged without a run, the copy would be lost");
        running.stop().await;
    }
}
