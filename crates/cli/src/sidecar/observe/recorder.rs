//! [`Recorder`]: what runs in a worker now, and the last things that went wrong, for the admin endpoint.

#[cfg(feature = "dashboard")]
use std::sync::MutexGuard;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use crate::sidecar::observe::rate_window::RateWindow;
#[cfg(feature = "dashboard")]
use crate::sidecar::observe::{
    failures::{FailureRow, Failures},
    in_flight::InFlight,
    redeliveries::{Redeliveries, SeenMessage},
};
use dms_protocol::internal::clock;
use dms_worker::worker::{AckResult, Delivery, Event, FailureKind, HandlerOutcome, Observer, Origin};

/// How many errors are remembered.
const MAX_ERRORS: usize = 5;
/// Messages that were handed back. The last one stands for all.
const RELEASED: &str = "released";
/// How much of an error's text is kept, in characters.
const MAX_CHARS: usize = 300;

/// Counts the running handlers of a worker, and remembers its last errors.
#[derive(Debug)]
pub(crate) struct Recorder {
    running: AtomicUsize,
    #[cfg(feature = "dashboard")]
    in_flight: InFlight,
    #[cfg(feature = "dashboard")]
    redelivered: Mutex<Redeliveries>,
    #[cfg(feature = "dashboard")]
    failures: Mutex<Failures>,
    /// Messages that were received and are not settled with the service.
    open: watch::Sender<usize>,
    handled: Mutex<RateWindow>,
    errors: Mutex<Vec<Seen>>,
}

/// An error that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    at: String,
    what: &'static str,
    error: String,
}

#[cfg(feature = "dashboard")]
impl Seen {
    /// When it happened, in RFC 3339.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// The step that failed, in one word.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Its text.
    pub(crate) fn error(&self) -> &str {
        &self.error
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            running: AtomicUsize::new(0),
            #[cfg(feature = "dashboard")]
            in_flight: InFlight::default(),
            #[cfg(feature = "dashboard")]
            redelivered: Mutex::default(),
            #[cfg(feature = "dashboard")]
            failures: Mutex::default(),
            open: watch::Sender::new(0),
            handled: Mutex::new(RateWindow::new(Instant::now())),
            errors: Mutex::default(),
        }
    }
}

impl Recorder {
    /// Handlers that run now. Unlike the worker's own count this has no places that polls have reserved.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// The messages that handlers work on now.
    #[cfg(feature = "dashboard")]
    pub(crate) fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Why messages were redelivered.
    #[cfg(feature = "dashboard")]
    pub(crate) fn redelivered(&self) -> MutexGuard<'_, Redeliveries> {
        self.redelivered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failures by their errors.
    #[cfg(feature = "dashboard")]
    pub(crate) fn failures(&self) -> Vec<FailureRow> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).rows()
    }

    /// Counts a failure, and remembers it.
    fn fail(&self, what: &'static str, error: &str, delivery: Option<&Delivery>) {
        #[cfg(feature = "dashboard")]
        {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.count(what, error, delivery.map(SeenMessage::now));
        }
        #[cfg(not(feature = "dashboard"))]
        let _ = delivery;
        self.record(what, error);
    }

    /// Waits until every message that was received is settled with the service. Cancel-safe.
    pub(crate) async fn settled(&self) {
        // The sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// How many messages were handled per second in the last minute.
    pub(crate) fn rate(&self) -> f64 {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).per_second(Instant::now())
    }

    /// The last errors, newest first.
    pub(crate) fn errors(&self) -> Vec<Seen> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    fn record(&self, what: &'static str, error: &str) {
        let now: Timestamp = clock::now();
        let seen = Seen { at: now.to_string(), what, error: error.chars().take(MAX_CHARS).collect() };
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        // Every message that was in flight is released for the same reason, which must not displace other errors.
        if what == RELEASED {
            errors.retain(|seen| seen.what != RELEASED);
        }
        if errors.len() == MAX_ERRORS {
            errors.remove(0);
        }
        errors.push(seen);
    }
}

impl Observer for Recorder {
    fn observe(&self, _: &Origin, event: &Event<'_>) {
        #[cfg(feature = "dashboard")]
        match event {
            Event::Started { delivery, .. } => self.in_flight.begin(delivery),
            Event::Handled { delivery, .. } => self.in_flight.end(delivery),
            Event::Redelivered { delivery, reason, .. } => {
                self.redelivered().count(*reason, SeenMessage::now(delivery))
            }
            _ => {}
        }
        match event {
            Event::Started { .. } => drop(self.running.fetch_add(1, Relaxed)),
            Event::Handled { .. } => {
                self.running.fetch_sub(1, Relaxed);
                self.handled.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
            }
            Event::Received { messages, .. } if *messages > 0 => self.open.send_modify(|open| *open += messages),
            Event::Settled { done, rest, .. } => self.open.send_modify(|open| *open = open.saturating_sub(done + rest)),
            _ => {}
        }
        match event {
            Event::PollFailed { error, .. } => self.fail("poll", &error.to_string(), None),
            Event::Handled { delivery, outcome, .. } => match outcome {
                HandlerOutcome::Failed(error) => match error.kind() {
                    // The application asked for the message later: nothing went wrong.
                    FailureKind::Defer(_) => {}
                    FailureKind::Release => self.record(RELEASED, &error.to_string()),
                    _ => self.fail("handler", &error.to_string(), Some(delivery)),
                },
                HandlerOutcome::Panicked(text) => self.fail("panic", text, Some(delivery)),
                HandlerOutcome::TimedOut => self.fail("handler", "stopped at its deadline", Some(delivery)),
                _ => {}
            },
            Event::Settled { result: AckResult::Late, .. } => self.fail("acknowledgement", "came too late", None),
            Event::Settled { result: AckResult::Refused(error), .. } => {
                self.fail("acknowledgement", &error.to_string(), None)
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_messages_do_not_displace_errors() {
        let recorder = Recorder::default();
        recorder.record("handler", "no such account");
        (0..20).for_each(|n| recorder.record(RELEASED, &format!("the application is down {n}")));
        let seen: Vec<_> = recorder.errors().into_iter().map(|seen| (seen.what, seen.error)).collect();
        let expected = [(RELEASED, "the application is down 19"), ("handler", "no such account")];
        assert_eq!(seen, expected.map(|(what, error)| (what, error.to_owned())));
    }
}
