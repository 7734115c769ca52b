//! [`Members`]: the workers of a runtime, which can change while it runs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{OnWorkerFailure, Task, error::AddWorkerError, report::WorkerEnd};
use crate::{
    limits::{LimitError, MAX_BYTES},
    worker::{SharedLimit, Sharing, Worker, WorkerHandle},
};

/// A change of a running runtime.
pub(super) enum Change {
    AddWorker(Box<Worker>),
    /// Stop this worker, and send how it ended.
    RemoveWorker(String, oneshot::Sender<WorkerEnd>),
    AddTask(Task),
}

/// The workers of a runtime, and the way to change them.
#[derive(Debug)]
pub(super) struct Members {
    state: Mutex<MembersState>,
    changes: mpsc::UnboundedSender<Change>,
}

#[derive(Debug)]
struct MembersState {
    handles: Vec<WorkerHandle>,
    /// The limit that the workers share; `None` if there has never been one.
    ceiling: Option<Arc<SharedLimit>>,
    on_failure: OnWorkerFailure,
    /// The grace period of the shutdown; by default the longest of the workers.
    grace: Option<Duration>,
}

impl Members {
    /// The members of a runtime without workers.
    pub(super) fn new(
        ceiling: Option<Arc<SharedLimit>>,
        on_failure: OnWorkerFailure,
        grace: Option<Duration>,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let state = Mutex::new(MembersState { handles: Vec::new(), ceiling, on_failure, grace });
        (Self { state, changes }, receiver)
    }

    /// The limit that all workers share, if there is one.
    pub(super) fn ceiling(&self) -> Option<Arc<SharedLimit>> {
        self.lock().ceiling.clone()
    }

    /// Sets the limit that the workers share.
    ///
    /// # Errors
    /// When it has no room for one poll of each worker. Nothing changes then.
    pub(super) fn set_limits(
        &self,
        messages: Option<usize>,
        bytes: Option<usize>,
        sharing: Sharing,
    ) -> Result<(), LimitError> {
        let mut state = self.lock();
        check_room(state.handles.len(), messages, bytes)?;
        match &state.ceiling {
            Some(ceiling) => ceiling.set(messages, bytes, sharing),
            None if messages.is_none() && bytes.is_none() => {}
            None => {
                let ceiling = SharedLimit::new(messages, bytes, sharing);
                state.handles.iter().for_each(|member| member.join_shared_limit(&ceiling));
                state.ceiling = Some(ceiling);
            }
        }
        Ok(())
    }

    pub(super) fn on_failure(&self) -> OnWorkerFailure {
        self.lock().on_failure
    }

    /// Sets the reaction to a worker that fails, for the workers that run as well.
    pub(super) fn set_on_failure(&self, policy: OnWorkerFailure) {
        let mut state = self.lock();
        state.on_failure = policy;
        state.handles.iter().for_each(|member| member.set_persistent(policy == OnWorkerFailure::Retry));
    }

    pub(super) fn handles(&self) -> Vec<WorkerHandle> {
        self.lock().handles.clone()
    }

    /// Checks a worker and makes it a member. [`start`](Self::start) starts it.
    ///
    /// # Errors
    /// When its name is taken, or the shared limit has no room for one more.
    pub(super) fn admit(&self, worker: &Worker) -> Result<WorkerHandle, LimitError> {
        let mut state = self.lock();
        let handle = worker.handle();
        if state.handles.iter().any(|member| member.name() == handle.name()) {
            return Err(LimitError {
                what: "name of a worker",
                value: format!("{:?} twice", handle.name()),
                allowed: "each needs a different name: set it when it is built".to_owned(),
            });
        }
        if let Some(ceiling) = &state.ceiling {
            let workers = state.handles.len() + 1;
            check_room(workers, ceiling.max_messages(), ceiling.max_bytes())?;
            handle.join_shared_limit(ceiling);
        }
        if let Some(grace) = state.grace {
            handle.set_shutdown_grace(grace);
        }
        handle.set_persistent(state.on_failure == OnWorkerFailure::Retry);
        state.handles.push(handle.clone());
        Ok(handle)
    }

    /// Adds a worker and has it started.
    pub(super) fn add(&self, worker: Worker, stopping: &CancellationToken) -> Result<WorkerHandle, AddWorkerError> {
        if stopping.is_cancelled() || self.changes.is_closed() {
            return Err(AddWorkerError::Stopped);
        }
        let handle = self.admit(&worker)?;
        if self.changes.send(Change::AddWorker(Box::new(worker))).is_err() {
            self.forget(handle.name());
            return Err(AddWorkerError::Stopped);
        }
        Ok(handle)
    }

    /// Stops a worker. The receiver gets how it ended.
    pub(super) fn remove(&self, name: &str) -> Option<oneshot::Receiver<WorkerEnd>> {
        let member = self.lock().handles.iter().find(|member| member.name() == name).cloned()?;
        member.stop();
        let (reply, ended) = oneshot::channel();
        self.changes.send(Change::RemoveWorker(name.to_owned(), reply)).ok()?;
        Some(ended)
    }

    /// Has a task started. Returns whether the runtime still accepts tasks.
    pub(super) fn add_task(&self, task: Task, stopping: &CancellationToken) -> bool {
        !stopping.is_cancelled() && self.changes.send(Change::AddTask(task)).is_ok()
    }

    /// Forgets a worker that has ended: its name is free, and so is its part of the shared limit.
    pub(super) fn forget(&self, name: &str) {
        self.lock().handles.retain(|member| {
            let stays = member.name() != name;
            if !stays {
                member.leave_shared_limit();
            }
            stays
        });
    }

    /// Sets the grace period of the shutdown, for the workers too.
    pub(super) fn set_grace(&self, grace: Duration) {
        let mut state = self.lock();
        state.grace = Some(grace);
        state.handles.iter().for_each(|member| member.set_shutdown_grace(grace));
    }

    /// The grace period of the shutdown.
    pub(super) fn grace(&self) -> Duration {
        let state = self.lock();
        let longest = state.handles.iter().map(WorkerHandle::shutdown_grace).max();
        state.grace.or(longest).unwrap_or(Duration::from_secs(25))
    }

    fn lock(&self) -> MutexGuard<'_, MembersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that one poll of each worker fits into a shared limit. Otherwise an idle worker could keep another one from
/// polling.
pub(super) fn check_room(workers: usize, messages: Option<usize>, bytes: Option<usize>) -> Result<(), LimitError> {
    at_least("max_in_flight", messages, workers, "one for each worker")?;
    at_least("max_in_flight_bytes", bytes, workers * MAX_BYTES, "one poll for each worker")
}

fn at_least(what: &'static str, value: Option<usize>, least: usize, why: &str) -> Result<(), LimitError> {
    match value.filter(|value| *value < least) {
        None => Ok(()),
        Some(value) => {
            Err(LimitError { what, value: value.to_string(), allowed: format!("at least {least} are needed, {why}") })
        }
    }
}
