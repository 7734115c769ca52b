//! [`Recorder`]: what runs in a worker now, and the last things that went wrong, for the admin endpoint.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clock,
    worker::{AckResult, Event, Observer, Outcome},
};

/// How many errors are remembered.
const KEPT: usize = 5;
/// How much of an error's text is kept, in characters.
const MAX_CHARS: usize = 300;

/// Counts the running handlers of a worker, and remembers its last errors.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    running: AtomicUsize,
    errors: Mutex<Vec<Seen>>,
}

/// An error that happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    at: String,
    what: &'static str,
    error: String,
}

impl Recorder {
    /// Handlers that run now. Unlike the worker's own count this has no places that polls have reserved.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// The last errors, the newest first.
    pub(crate) fn errors(&self) -> Vec<Seen> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    fn record(&self, what: &'static str, error: &str) {
        let now: Timestamp = clock::now();
        let seen = Seen { at: now.to_string(), what, error: error.chars().take(MAX_CHARS).collect() };
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() == KEPT {
            errors.remove(0);
        }
        errors.push(seen);
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Started => drop(self.running.fetch_add(1, Relaxed)),
            Event::Handled { .. } => drop(self.running.fetch_sub(1, Relaxed)),
            _ => {}
        }
        match event {
            Event::PollFailed { error, .. } => self.record("poll", &error.to_string()),
            Event::Handled { outcome, .. } => match outcome {
                Outcome::Failed(error) => self.record("handler", &error.to_string()),
                Outcome::Panicked(text) => self.record("panic", text),
                Outcome::TimedOut => self.record("handler", "stopped at its deadline"),
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
