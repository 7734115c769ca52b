//! [`Sessions`]: finds a worker's queue and group, and finds them again after they were deleted.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    client::Error,
    retry::{RetryPolicy, Schedule},
    text::brief,
    worker::{error::WorkerError, pipeline::context::Context, setup::Setup, targets::Targets},
};

/// The first and the longest pause between two look-ups.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A queue that is consumed, until it is deleted.
struct Session {
    targets: Targets,
    context: Arc<Context>,
}

/// The queues that a worker has consumed under one name, the newest last, and the search for the next one.
pub(crate) struct Sessions {
    sessions: Vec<Session>,
    backoff: Schedule,
    /// Why the queue is being looked up.
    reason: Option<WorkerError>,
    /// When it was last found.
    found: Option<Instant>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { sessions: Vec::new(), backoff: schedule(), reason: None, found: None }
    }
}

fn schedule() -> Schedule {
    let policy = RetryPolicy::try_new(FIRST_PAUSE, MAX_PAUSE, 2.0, 0.5);
    policy.unwrap_or_default().max_attempts(None).schedule()
}

impl Sessions {
    /// The context of the newest session; `None` before the first one.
    pub(crate) fn current(&self) -> Option<Arc<Context>> {
        self.sessions.last().map(|session| session.context.clone())
    }

    /// The contexts of all sessions that may have messages in flight.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Context> {
        self.sessions.iter().rev().map(|session| &*session.context)
    }

    /// The queue of the newest session was deleted.
    pub(crate) fn lost(&mut self, error: Error) {
        self.reason = Some(error.into());
    }

    /// Looks up the names until they are found, and assembles a session for them. Cancel-safe.
    ///
    /// # Errors
    /// If they are not found and the worker should not wait for them.
    pub(crate) async fn find(&mut self, setup: &Setup) -> Result<(), WorkerError> {
        if let Some(reason) = self.reason.take() {
            let polled = setup.control.health.last_poll() >= self.found;
            if polled {
                // The worker has polled until now, so the queue may already exist again, under another id.
                self.backoff = schedule();
                report_failure(setup, &reason, Duration::ZERO);
            } else {
                self.pause(setup, &reason).await;
            }
        }
        let is_new = loop {
            let error = match self.attempt(setup).await {
                Ok(is_new) => break is_new,
                Err(error) => error,
            };
            let refused = error.client_error().is_none_or(|error| !error.is_retryable());
            if refused && !waits(setup, &error) {
                return Err(error);
            }
            self.pause(setup, &error).await;
        };
        self.found = Some(Instant::now());
        // If nothing has changed, the reply to the next poll decides whether the worker can continue.
        if is_new {
            setup.control.works();
        }
        Ok(())
    }

    /// Looks the names up once. Returns whether they stand for something else than before.
    async fn attempt(&mut self, setup: &Setup) -> Result<bool, WorkerError> {
        let targets = setup.look_up().await?;
        if self.sessions.last().is_some_and(|last| last.targets.is_same(&targets)) {
            return Ok(false);
        }
        setup.check_queue(&targets.queue)?;
        for warning in setup.control.warnings() {
            tracing::warn!(worker = setup.control.name, "{warning}");
        }
        let context = Arc::new(setup.assemble(targets.clone())?);
        // Messages in flight of a deleted queue end by themselves.
        for session in &self.sessions {
            session.context.batches.close();
        }
        self.sessions.retain(|session| !session.context.batches.is_empty());
        self.sessions.push(Session { targets, context });
        Ok(true)
    }

    async fn pause(&mut self, setup: &Setup, error: &WorkerError) {
        let delay = self.backoff.next_delay().unwrap_or(MAX_PAUSE);
        let refusal = error.client_error().filter(|error| error.is_auth());
        let asked = error.client_error().and_then(Error::retry_after);
        let retry_in = asked.map_or(delay, |asked| delay.max(asked));
        if let Some(refusal) = refusal {
            setup.control.health.refused(refusal);
        }
        report_failure(setup, error, retry_in);
        sleep(retry_in).await;
    }
}

/// Whether the worker retries a look-up that failed with this error.
fn waits(setup: &Setup, error: &WorkerError) -> bool {
    let error = error.client_error();
    let gone = error.is_some_and(Error::is_not_found) && setup.control.health.has_polled();
    gone || setup.puts_up_with(error)
}

/// Logs a failure once, as long as its reason is the same.
fn report_failure(setup: &Setup, error: &WorkerError, retry_in: Duration) {
    // Each request has an id, which would make each reason a new one.
    let reason = match error.client_error().and_then(Error::request_id) {
        Some(id) => error.to_string().replace(id, ""),
        None => error.to_string(),
    };
    let worker = &setup.control.name;
    if setup.control.set_failure(Some(reason.clone())).as_ref() == Some(&reason) {
        tracing::debug!(worker, %error, retry_in = %brief(retry_in), "the queue is still being looked up");
    } else {
        tracing::warn!(worker, %error, retry_in = %brief(retry_in), "the worker cannot continue and keeps looking up its queue and group");
    }
}
