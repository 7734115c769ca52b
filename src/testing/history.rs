//! [`History`]: the calls of handlers under test, for assertions and their messages.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;

use crate::worker::{BatchHandler, Delivery, Handler, HandlerError};

/// The calls of a group's handlers, in the order in which they ended. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct History {
    begun: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// One message in one call of a handler.
#[derive(Clone, Debug)]
pub(super) struct Call {
    at: Duration,
    took: Duration,
    body: Value,
    attempt: u32,
    retry: u32,
    /// The failure; `None` for a success.
    failure: Option<String>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), calls: Arc::default() }
    }

    /// The number of deliveries of messages with this body, without retries within a lease.
    pub(super) fn deliveries(&self, body: &Value) -> usize {
        self.lock().iter().filter(|call| call.body == *body && call.retry == 0).count()
    }

    /// Returns whether a handler succeeded with this body.
    pub(super) fn has_succeeded(&self, body: &Value) -> bool {
        self.lock().iter().any(|call| call.body == *body && call.failure.is_none())
    }

    fn begin(&self, delivery: &Delivery) -> Begun {
        Begun {
            history: self.clone(),
            at: Instant::now(),
            body: delivery.body().parse().unwrap_or_default(),
            attempt: delivery.attempt(),
            retry: delivery.retry(),
            failure: None,
            ended: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        // No code that can panic runs under this lock.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.lock();
        if calls.is_empty() {
            return f.write_str("no handler was called");
        }
        f.write_str("the handlers' calls were")?;
        for Call { at, took, body, attempt, retry, failure } in calls.iter() {
            let end = failure.as_deref().unwrap_or("success");
            write!(f, "\n  at {at:?}, {body}, attempt {attempt}, retry {retry}: {end} after {took:?}")?;
        }
        Ok(())
    }
}

/// A started call. If it is dropped without a result, its handler panicked or was stopped.
struct Begun {
    history: History,
    at: Instant,
    body: Value,
    attempt: u32,
    retry: u32,
    failure: Option<String>,
    ended: bool,
}

impl Begun {
    fn ended(mut self, answer: &Result<(), HandlerError>) {
        self.failure = answer.as_ref().err().map(|error| format!("{:?}, {error},", error.kind()));
        self.ended = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let lost = if thread::panicking() { "a panic" } else { "stopped" };
        let failure = if self.ended { self.failure.take() } else { Some(lost.to_owned()) };
        let call = Call {
            at: self.at - self.history.begun,
            took: self.at.elapsed(),
            body: self.body.take(),
            attempt: self.attempt,
            retry: self.retry,
            failure,
        };
        self.history.lock().push(call);
    }
}

/// A handler whose calls are recorded.
pub(super) struct Recorded<H> {
    pub(super) handler: H,
    pub(super) history: History,
}

#[async_trait]
impl<H: Handler> Handler for Recorded<H> {
    async fn handle(&self, delivery: Delivery) -> Result<(), HandlerError> {
        let begun = self.history.begin(&delivery);
        let answer = self.handler.handle(delivery).await;
        begun.ended(&answer);
        answer
    }
}

#[async_trait]
impl<H: BatchHandler> BatchHandler for Recorded<H> {
    async fn handle_batch(&self, deliveries: Vec<Delivery>) -> Result<Vec<Result<(), HandlerError>>, HandlerError> {
        let begun: Vec<_> = deliveries.iter().map(|delivery| self.history.begin(delivery)).collect();
        let answer = self.handler.handle_batch(deliveries).await;
        for (position, begun) in begun.into_iter().enumerate() {
            match &answer {
                Ok(verdicts) => match verdicts.get(position) {
                    Some(verdict) => begun.ended(verdict),
                    None => begun.ended(&Err(HandlerError::retry("no verdict"))),
                },
                Err(error) => begun.ended(&Err(error.clone())),
            }
        }
        answer
    }
}
