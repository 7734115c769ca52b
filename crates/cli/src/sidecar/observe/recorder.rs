//! [`Recorder`]: what runs in a worker now, and the last things that went wrong, for the admin endpoint.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

#[cfg(feature = "dashboard")]
use crate::sidecar::observe::in_flight::InFlight;
use crate::sidecar::observe::rate_window::Window;
use dms_protocol::internal::clock;
#[cfg(feature = "dashboard")]
use dms_worker::worker::Redelivery;
use dms_worker::worker::{AckResult, Event, FailureKind, HandlerOutcome, Observer, Origin};

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
    /// The number of redeliveries by reason, in the order of [`Redelivery::ALL`].
    #[cfg(feature = "dashboard")]
    redelivered: Mutex<[u64; Redelivery::ALL.len()]>,
    /// Messages that were received and are not settled with the service.
    open: watch::Sender<usize>,
    handled: Mutex<Window>,
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
            open: watch::Sender::new(0),
            handled: Mutex::new(Window::new(Instant::now())),
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

    /// Why messages were redelivered, with the number of each reason that occurred.
    #[cfg(feature = "dashboard")]
    pub(crate) fn redelivered(&self) -> Vec<(Redelivery, u64)> {
        let counts = *self.redelivered.lock().unwrap_or_else(PoisonError::into_inner);
        Redelivery::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    #[cfg(feature = "dashboard")]
    fn count_redelivery(&self, reason: Redelivery) {
        let mut counts = self.redelivered.lock().unwrap_or_else(PoisonError::into_inner);
        let all = Redelivery::ALL.into_iter().zip(counts.iter_mut());
        all.filter(|(known, _)| *known == reason).for_each(|(_, count)| *count += 1);
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
            Event::Redelivered { reason, .. } => self.count_redelivery(*reason),
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
            Event::PollFailed { error, .. } => self.record("poll", &error.to_string()),
            Event::Handled { outcome, .. } => match outcome {
                HandlerOutcome::Failed(error) => match error.kind() {
                    // The application asked for the message later: nothing went wrong.
                    FailureKind::Defer(_) => {}
                    FailureKind::Release => self.record(RELEASED, &error.to_string()),
                    _ => self.record("handler", &error.to_string()),
                },
                HandlerOutcome::Panicked(text) => self.record("panic", text),
                HandlerOutcome::TimedOut => self.record("handler", "stopped at its deadline"),
                _ => {}
            },
            Event::Settled { result: AckResult::Late, .. } => self.record("acknowledgement", "came too late"),
            Event::Settled { result: AckResult::Refused(error), .. } => {
                self.record("acknowledgement", &error.to_string())
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "dashboard")]
    #[test]
    fn redeliveries_are_counted_by_reason() {
        let recorder = Recorder::default();
        let reasons = [Redelivery::LateAck, Redelivery::Failed, Redelivery::LateAck];
        reasons.into_iter().for_each(|reason| recorder.count_redelivery(reason));
        assert_eq!(recorder.redelivered(), [(Redelivery::Failed, 1), (Redelivery::LateAck, 2)]);
    }

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
