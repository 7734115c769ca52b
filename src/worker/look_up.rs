//! What the names of a worker's settings stand for, looked up at the start, and again when it is gone.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    client::Error,
    queue::{Queue, QueueId, SourcePath, Stream},
    retry::{RetryPolicy, Schedule},
    worker::{OnFailure, OnReject, OnUndecodable, Worker, WorkerError, pipeline::context::Shared},
};

/// The first and the longest pause between two look-ups.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the names stand for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Targets {
    pub(super) queue: Queue,
    pub(super) path: SourcePath,
    pub(super) reject_queue: Option<QueueId>,
    pub(super) undecodable_queue: Option<QueueId>,
    pub(super) exhausted_queue: Option<QueueId>,
}

impl Targets {
    /// Whether a worker that was put together for the others can go on.
    fn is_same(&self, other: &Self) -> bool {
        let of = |targets: &Self| (targets.queue.mode, targets.path.clone());
        let parking = |targets: &Self| {
            [&targets.reject_queue, &targets.undecodable_queue, &targets.exhausted_queue].map(Option::clone)
        };
        of(self) == of(other) && parking(self) == parking(other)
    }
}

/// A queue that is consumed, until it is gone.
pub(super) struct Session {
    targets: Targets,
    pub(super) shared: Arc<Shared>,
}

/// The look-ups since the worker last got an answer from its queue.
pub(super) struct Search {
    backoff: Schedule,
    /// Why the queue is looked up.
    reason: Option<WorkerError>,
    /// When it was found last.
    found: Option<Instant>,
}

impl Default for Search {
    fn default() -> Self {
        Self { backoff: schedule(), reason: None, found: None }
    }
}

impl Search {
    /// The queue that was found is gone.
    pub(super) fn lost(&mut self, error: Error) {
        self.reason = Some(error.into());
    }
}

fn schedule() -> Schedule {
    let policy = RetryPolicy::try_new(FIRST_PAUSE, LONGEST_PAUSE, 2.0, 0.5);
    policy.unwrap_or_default().max_attempts(None).schedule()
}

impl Worker {
    /// Looks up the names until they are found, and puts the worker together for them. Cancel-safe.
    ///
    /// # Errors
    /// When they cannot be found and it is not for the worker to wait.
    pub(super) async fn find(&self, search: &mut Search, sessions: &mut Vec<Session>) -> Result<(), WorkerError> {
        if let Some(reason) = search.reason.take() {
            let polled = self.control.health.last_poll() >= search.found;
            if polled {
                // It worked until now, so it may be there again at once under another id.
                search.backoff = schedule();
                self.tell_failure(&reason, Duration::ZERO);
            } else {
                self.pause(search, &reason).await;
            }
        }
        let is_new = loop {
            let error = match self.attempt(sessions).await {
                Ok(is_new) => break is_new,
                Err(error) => error,
            };
            let refused = error.client_error().is_none_or(|error| !error.is_retryable());
            if refused && !self.waits(&error) {
                return Err(error);
            }
            self.pause(search, &error).await;
        };
        search.found = Some(Instant::now());
        // Where nothing has changed, the next answer to a poll says whether the worker can go on.
        if is_new {
            self.control.works();
        }
        Ok(())
    }

    /// Whether the names are looked up again after polls failed with this error.
    pub(super) fn looks_again(&self, error: &Error) -> bool {
        error.is_not_found() || self.puts_up_with(Some(error))
    }

    /// Whether the worker waits until a look-up that failed works.
    fn waits(&self, error: &WorkerError) -> bool {
        let error = error.client_error();
        let gone = error.is_some_and(Error::is_not_found) && self.control.health.has_polled();
        gone || self.puts_up_with(error)
    }

    /// A key that never worked is for the operator to change (one that has worked is waited for by the client and the polls); everything
    /// else may pass.
    fn puts_up_with(&self, error: Option<&Error>) -> bool {
        self.persistent && error.is_none_or(|error| !error.is_auth())
    }

    /// Looks the names up once. Says whether they stand for something else than before.
    async fn attempt(&self, sessions: &mut Vec<Session>) -> Result<bool, WorkerError> {
        let targets = self.look_up().await?;
        if sessions.last().is_some_and(|last| last.targets.is_same(&targets)) {
            return Ok(false);
        }
        self.check_ground(&targets.queue)?;
        for warning in self.control.warnings() {
            tracing::warn!(worker = self.control.name, "{warning}");
        }
        let shared = Arc::new(self.assemble(targets.clone())?);
        // What is in flight of a queue that is gone ends by itself.
        for session in &*sessions {
            session.shared.batches.close();
        }
        sessions.retain(|session| !session.shared.batches.is_empty());
        sessions.push(Session { targets, shared });
        Ok(true)
    }

    async fn pause(&self, search: &mut Search, error: &WorkerError) {
        let delay = search.backoff.next_delay().unwrap_or(LONGEST_PAUSE);
        let refusal = error.client_error().filter(|error| error.is_auth());
        let asked = error.client_error().and_then(Error::retry_after);
        let retry_in = asked.map_or(delay, |asked| delay.max(asked));
        if let Some(refusal) = refusal {
            self.control.health.refused(refusal);
        }
        self.tell_failure(error, retry_in);
        sleep(retry_in).await;
    }

    /// Logs a failure once, for as long as its reason stays the same.
    fn tell_failure(&self, error: &WorkerError, retry_in: Duration) {
        // Every request has an id of its own.
        let reason = match error.client_error().and_then(Error::request_id) {
            Some(id) => error.to_string().replace(id, ""),
            None => error.to_string(),
        };
        let worker = &self.control.name;
        if self.control.note_failure(Some(reason.clone())).as_ref() == Some(&reason) {
            tracing::debug!(worker, %error, ?retry_in, "the queue is still looked up");
        } else {
            tracing::warn!(worker, %error, ?retry_in, "the worker cannot go on: its queue and group are looked up until it can");
        }
    }

    pub(super) async fn look_up(&self) -> Result<Targets, Error> {
        let queue = self.client.find_queue(&self.queue).await?;
        let group = self.client.find_group(&queue.id, &self.group).await?;
        let reject_queue = self.parking_queue(&self.settings.on_reject).await?;
        let undecodable_queue = match &self.settings.on_undecodable {
            OnUndecodable::Own(policy) => self.parking_queue(policy).await?,
            OnUndecodable::Reject | OnUndecodable::Retry => None,
        };
        let exhausted_queue = match &self.settings.on_failure {
            OnFailure::Republish(republish) => self.parking_queue(&republish.then).await?,
            OnFailure::Redeliver => None,
        };
        let stream = if self.settings.dead_letters { Stream::DeadLetters } else { Stream::Messages };
        let path = SourcePath { queue: queue.id.clone(), group: group.id, stream };
        Ok(Targets { queue, path, reject_queue, undecodable_queue, exhausted_queue })
    }

    async fn parking_queue(&self, policy: &OnReject) -> Result<Option<QueueId>, Error> {
        match policy {
            OnReject::Park(queue) => self.client.find_queue(queue).await.map(|queue| Some(queue.id)),
            OnReject::Fail | OnReject::Discard => Ok(None),
        }
    }
}
