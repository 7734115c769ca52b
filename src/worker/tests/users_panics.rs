//! Panics in the user's code outside of handlers: in errors, values, and futures.

use std::{error::Error as StdError, fmt};

use super::*;

/// Where an error panics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evil {
    Display,
    Debug,
    Source,
    Drop,
}

struct EvilError(Evil);

impl fmt::Display for EvilError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.0 != Evil::Display, "planted");
        f.write_str("evil")
    }
}

impl fmt::Debug for EvilError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.0 != Evil::Debug, "planted");
        f.write_str("Evil")
    }
}

impl StdError for EvilError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        assert!(self.0 != Evil::Source, "planted");
        None
    }
}

impl Drop for EvilError {
    fn drop(&mut self) {
        assert!(self.0 != Evil::Drop, "planted");
    }
}

/// Formats everything that an event contains, as an observer that logs does.
#[derive(Default)]
struct Curious(Mutex<Vec<String>>);

impl Observer for Curious {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        let told = format!("{event:?}");
        if let Event::Handled { outcome, .. } = event {
            if let HandlerOutcome::Failed(error) = outcome {
                let boxed: Box<dyn StdError + Send + Sync> = (*error).clone().into();
                let _ = (boxed.to_string(), boxed.source().is_some());
            }
            self.0.lock().unwrap().push(format!("{} {}", outcome.name(), told.len()));
        }
    }
}

/// Formats everything, as a log does, and keeps nothing.
fn logged() -> tracing::subscriber::DefaultGuard {
    let all = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::sink);
    tracing::subscriber::set_default(all.finish())
}

fn lanes(on_reject: OnReject) -> Settings {
    Settings { ordering: Ordering::by_attribute("key"), on_reject, ..Settings::default() }
}

/// A run without a verdict is a failure: its key continues, its message counts as failed, and the worker lives.
#[tokio::test(start_paused = true)]
async fn an_error_that_panics_fails_its_message_and_its_key_continues() {
    let _logged = logged();
    for evil in [Evil::Display, Evil::Debug, Evil::Source, Evil::Drop] {
        for parks in [false, true] {
            let script = Script::new(&[&["a1", "a2", "b1"]]);
            let settings = lanes(if parks { OnReject::Park("attic".to_owned()) } else { OnReject::Fail });
            let curious = Arc::new(Curious::default());
            let running = Running::observed(&script, settings, Some(curious.clone()), move |name, _| async move {
                match name.as_str() {
                    "a1" if parks => Err(HandlerError::reject(EvilError(evil))),
                    "a1" => Err(HandlerError::retry(EvilError(evil))),
                    _ => Ok(()),
                }
            });
            running.after(SECOND * 5).await;
            script.push(&["a3"]);
            running.after(SECOND * 40).await;
            let acks = script.acks();
            if parks {
                assert_eq!(acks.first(), Some(&list(&[("a1", OK), ("a2", OK), ("b1", OK)])));
                let copies = script.forwarded.lock().unwrap();
                assert!(copies.len() == 1 && copies[0].attributes.get(ERROR).is_some(), "{copies:?}");
            } else {
                assert_eq!(acks.first(), Some(&list(&[("a1", FAIL)])));
            }
            assert_eq!(acks.last(), Some(&list(&[("a3", OK)])), "its lane is open again");
            let report = running.control.counters.report(false);
            assert_eq!((report.failed, report.rejected), if parks { (0, 1) } else { (1, 0) }, "its message is counted");
            assert_eq!(curious.0.lock().unwrap().len(), if parks { 4 } else { 3 }, "the observer received each event");
            assert!(running.stop().await.drained);
        }
    }
}

/// The values of a handler's future are dropped when the handler is stopped. A panic then fails its message only.
#[tokio::test(start_paused = true)]
async fn a_future_that_panics_when_it_is_dropped_fails_its_message_only() {
    let script = Script::new(&[&["a1", "b1"]]);
    let settings = Settings { handler_timeout: Some(SECOND), ..lanes(OnReject::Fail) };
    let curious = Arc::new(Curious::default());
    let running = Running::observed(&script, settings, Some(curious.clone()), |name, _| async move {
        if name == "a1" {
            let _held = EvilError(Evil::Drop);
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    running.after(SECOND * 5).await;
    script.push(&["a2"]);
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a1", FAIL)]), list(&[("a2", OK)])]);
    assert!(curious.0.lock().unwrap().iter().any(|told| told.starts_with("timed_out")));
    assert!(running.stop().await.drained);
}

/// The payload of a panic is a value of the user, too.
#[tokio::test(start_paused = true)]
async fn a_panic_whose_payload_panics_fails_its_message_only() {
    let script = Script::new(&[&["a1", "b1"]]);
    let running = Running::start(&script, lanes(OnReject::Fail), |name, _| async move {
        if name == "a1" {
            std::panic::panic_any(EvilError(Evil::Drop));
        }
        Ok(())
    });
    running.after(SECOND * 5).await;
    script.push(&["a2"]);
    running.after(SECOND * 40).await;
    assert_eq!(script.acks(), [list(&[("a1", FAIL)]), list(&[("a2", OK)])]);
    let report = running.stop().await;
    assert!(report.drained && report.panicked == 1, "{report:?}");
}

/// A transport of the user that panics in an acknowledgement does not block its keys.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_panics_blocks_no_key() {
    let script = Script::new(&[&["a1"]]);
    script.deadly_acks.store(1, SeqCst);
    let running = Running::start(&script, lanes(OnReject::Fail), |name, _| async move {
        if name == "a1" { Err(HandlerError::retry("no")) } else { Ok(()) }
    });
    running.after(SECOND * 5).await;
    script.push(&["a2"]);
    running.after(SECOND * 40).await;
    assert_eq!(script.acks().last(), Some(&list(&[("a2", OK)])), "{:?}", script.acks());
    assert!(running.stop().await.drained);
}

/// The text of an error may be endless, but the part that is kept is bounded.
#[test]
fn an_endless_error_text_is_cut() {
    struct Endless;
    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("é and so on, ")?;
            }
        }
    }
    impl fmt::Debug for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            fmt::Display::fmt(self, f)
        }
    }
    impl StdError for Endless {}
    let error = HandlerError::retry(Endless);
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(text.len() < 10_000 && text.contains("é and so on"), "{} bytes", text.len());
    }
}
