//! [`Sessions`]: finds a worker's queue and group, and finds them again when they are gone.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    client::Error,
    retry::{RetryPolicy, Schedule},
    worker::{error::WorkerError, pipeline::context::Context, setup::Setup, targets::Targets},
};

/// The first and the longest pause between two look-ups.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A queue that is consumed, until it is gone.
struct Session {
    targets: Targets,
    context: Arc<Context>,
}

/// The queues that a worker has consumed under one name, the newest last, and the look-ups of the next one.
pub(crate) struct Sessions {
    sessions: Vec<Session>,
    backoff: Schedule,
    /// Why the queue is looked up.
    reason: Option<WorkerError>,
    /// When it was found last.
    found: Option<Instant>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { sessions: Vec::new(), backoff: schedule(), reason: None, found: None }
    }
}

fn schedule() -> Schedule {
    let policy = RetryPolicy::try_new(FIRST_PAUSE, LONGEST_PAUSE, 2.0, 0.5);
    policy.unwrap_or_default().max_attempts(None).schedule()
}

impl Sessions {
    /// What the tasks of the current session share; `None` before the first one.
    pub(crate) fn current(&self) -> Option<Arc<Context>> {
        self.sessions.last().map(|session| session.context.clone())
    }

    /// The same of every session that may have messages in flight.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Context> {
        self.sessions.iter().rev().map(|session| &*session.context)
    }

    /// The queue that was found is gone.
    pub(crate) fn lost(&mut self, error: Error) {
        self.reason = Some(error.into());
    }

    /// Looks up the names until they are found, and puts the worker together for them. Cancel-safe.
    ///
    /// # Errors
    /// When they cannot be found and it is not for the worker to wait.
    pub(crate) async fn find(&mut self, setup: &Setup) -> Result<(), WorkerError> {
        if let Some(reason) = self.reason.take() {
            let polled = setup.control.health.last_poll() >= self.found;
            if polled {
                // It worked until now, so it may be there again at once under another id.
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
        // Where nothing has changed, the next answer to a poll says whether the worker can go on.
        if is_new {
            setup.control.works();
        }
        Ok(())
    }

    /// Looks the names up once. Says whether they stand for something else than before.
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
        // What is in flight of a queue that is gone ends by itself.
        for session in &self.sessions {
            session.context.batches.close();
        }
        self.sessions.retain(|session| !session.context.batches.is_empty());
        self.sessions.push(Session { targets, context });
        Ok(true)
    }

    async fn pause(&mut self, setup: &Setup, error: &WorkerError) {
        let delay = self.backoff.next_delay().unwrap_or(LONGEST_PAUSE);
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

/// Whether the worker waits until a look-up that failed works.
fn waits(setup: &Setup, error: &WorkerError) -> bool {
    let error = error.client_error();
    let gone = error.is_some_and(Error::is_not_found) && setup.control.health.has_polled();
    gone || setup.puts_up_with(error)
}

/// Logs a failure once, for as long as its reason stays the same.
fn report_failure(setup: &Setup, error: &WorkerError, retry_in: Duration) {
    // Every request has an id of its own.
    let reason = match error.client_error().and_then(Error::request_id) {
        Some(id) => error.to_string().replace(id, ""),
        None => error.to_string(),
    };
    let worker = &setup.control.name;
    if setup.control.set_failure(Some(reason.clone())).as_ref() == Some(&reason) {
        tracing::debug!(worker, %error, ?retry_in, "the queue is still looked up");
    } else {
        tracing::warn!(worker, %error, ?retry_in, "the worker cannot go on: its queue and group are looked up until it can");
    }
}
