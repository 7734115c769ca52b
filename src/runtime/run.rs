//! [`Runtime::run`]: runs the workers and tasks, and ends them in order.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    OnWorkerFailure, Runtime, RuntimeHandle, Task,
    members::Change,
    report::{RuntimeReport, WorkerEnd},
};
use crate::{
    later::after,
    worker::{Worker, WorkerError, WorkerHandle, WorkerReport},
};

/// The time for tasks and producers if handlers have used up the grace period.
const MIN_GRACE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Runs until `shutdown` resolves, [`RuntimeHandle::stop`] is called, or a worker fails and the
    /// [policy](OnWorkerFailure) stops all. Then everything ends in order.
    ///
    /// A worker that is stopped by its own handle ends alone, and so does one that is removed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops everything at once. Messages in flight are redelivered when their lease ends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> RuntimeReport {
        let Self { workers, tasks, mut changes, handle } = self;
        let mut extra_tasks = ExtraTasks::default();
        tasks.into_iter().for_each(|task| extra_tasks.begin(task, &handle));
        let mut worker_tasks = WorkerTasks::new(&handle);
        workers.into_iter().for_each(|worker| worker_tasks.begin(worker));
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = handle.stopping.cancelled() => break,
                () = &mut shutdown => handle.stop(),
                // The handle in this function keeps the channel open.
                Some(change) = changes.recv() => match change {
                    Change::AddWorker(worker) => worker_tasks.begin(*worker),
                    Change::RemoveWorker(name, reply) => worker_tasks.remove(&name, reply),
                    Change::AddTask(task) => extra_tasks.begin(task, &handle),
                },
                () = extra_tasks.reap() => {}
                Some(failed) = worker_tasks.next(), if !worker_tasks.is_empty() => {
                    let ends_all = match handle.members.on_failure() {
                        OnWorkerFailure::StopAll => failed.is_some(),
                        OnWorkerFailure::Continue => false,
                        OnWorkerFailure::Retry => failed == Some(Failed::Refused),
                    };
                    if ends_all || worker_tasks.has_failed() {
                        handle.stop();
                    }
                }
            }
        }
        // Workers and tasks that were added at the last moment do not start. A removal still gets its answer.
        changes.close();
        while let Ok(change) = changes.try_recv() {
            match change {
                Change::RemoveWorker(name, reply) => worker_tasks.remove(&name, reply),
                Change::AddWorker(worker) => handle.members.forget(worker.handle().name()),
                Change::AddTask(_) => {}
            }
        }
        let until = after(Instant::now(), handle.members.grace());
        while worker_tasks.next().await.is_some() {}
        let until = until.max(Instant::now() + MIN_GRACE);
        let tasks_ended = extra_tasks.end(until, &handle).await;
        let left = if handle.now.is_cancelled() { Duration::ZERO } else { until - Instant::now() };
        let producers = handle.producers.close(left).await;
        let workers = worker_tasks.ends();
        let drained = tasks_ended
            && producers.iter().all(|end| end.report.unsent == 0)
            && workers.iter().all(|end| end.result.as_ref().is_ok_and(|report| report.drained));
        RuntimeReport { workers, producers, drained }
    }
}

/// Why a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// The service refuses the key, which the other workers use as well.
    Refused,
    /// Any other reason.
    Otherwise,
}

/// The running workers, and the results of the others.
struct WorkerTasks {
    running: JoinSet<Result<WorkerReport, WorkerError>>,
    numbers: HashMap<Id, u64>,
    /// In the order in which they were added.
    workers: BTreeMap<u64, WorkerTask>,
    next_number: u64,
    handle: RuntimeHandle,
}

/// A worker that has started.
struct WorkerTask {
    worker: WorkerHandle,
    result: Option<Result<WorkerReport, WorkerError>>,
    /// Receives the result of a worker that is being removed.
    removals: Vec<oneshot::Sender<WorkerEnd>>,
}

impl WorkerTasks {
    fn new(handle: &RuntimeHandle) -> Self {
        let (numbers, workers) = (HashMap::new(), BTreeMap::new());
        Self { running: JoinSet::new(), numbers, workers, next_number: 0, handle: handle.clone() }
    }

    fn begin(&mut self, worker: Worker) {
        let (handle, stop) = (worker.handle(), self.handle.stopping.clone());
        let task = self.running.spawn(async move { worker.run(stop.cancelled_owned()).await });
        self.numbers.insert(task.id(), self.next_number);
        self.workers.insert(self.next_number, WorkerTask { worker: handle, result: None, removals: Vec::new() });
        self.next_number += 1;
    }

    /// Removes a worker, now if it has ended, else when it ends.
    fn remove(&mut self, name: &str, reply: oneshot::Sender<WorkerEnd>) {
        // A worker that was removed may have a successor of the same name.
        let found = self.workers.iter_mut().rev().find(|(_, task)| task.worker.name() == name);
        let Some((number, task)) = found else { return };
        let number = *number;
        task.removals.push(reply);
        if task.result.is_some() {
            self.take_out(number);
        }
    }

    /// Returns whether no worker is left and at least one failed.
    fn has_failed(&self) -> bool {
        self.is_empty() && self.workers.values().any(|task| matches!(task.result, Some(Err(_))))
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits until a worker ends. Returns whether and why it failed; `None` if no worker is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no result.
    async fn next(&mut self) -> Option<Option<Failed>> {
        let ended = self.running.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let result = ended.map_or_else(|panic| Err(WorkerError::died(&panic)), |(_, result)| result);
        let number = self.numbers.remove(&id).unwrap_or_default();
        let Some(task) = self.workers.get_mut(&number) else { return Some(None) };
        let is_removed = !task.removals.is_empty();
        if let Err(error) = &result {
            tracing::error!(worker = task.worker.name(), %error, "the worker has failed and does not try again");
            task.worker.set_failure(error);
        }
        let failed = result.as_ref().err().filter(|_| !is_removed).map(|error| match error.client_error() {
            Some(error) if error.is_auth() => Failed::Refused,
            _ => Failed::Otherwise,
        });
        task.result = Some(result);
        if is_removed {
            self.take_out(number);
        }
        Some(failed)
    }

    /// Reports the end of a removed worker to the first caller that still waits for it. If there is none, the end stays
    /// for the report.
    fn take_out(&mut self, number: u64) {
        let Some(task) = self.workers.get_mut(&number) else { return };
        let name = task.worker.name().to_owned();
        self.handle.members.forget(&name);
        let Some(result) = task.result.take() else { return };
        let mut end = WorkerEnd { name, result };
        for reply in std::mem::take(&mut task.removals) {
            match reply.send(end) {
                Ok(()) => {
                    self.workers.remove(&number);
                    return;
                }
                Err(unsent) => end = unsent,
            }
        }
        task.result = Some(end.result);
    }

    fn ends(self) -> Vec<WorkerEnd> {
        let end = |task: WorkerTask| {
            let name = task.worker.name().to_owned();
            task.result.map(|result| WorkerEnd { name, result })
        };
        self.workers.into_values().filter_map(end).collect()
    }
}

/// The tasks that run next to the workers.
#[derive(Default)]
struct ExtraTasks {
    running: JoinSet<()>,
    names: HashMap<Id, String>,
    /// Whether a task panicked.
    died: bool,
}

impl ExtraTasks {
    fn begin(&mut self, task: Task, handle: &RuntimeHandle) {
        let Task { name, begin } = task;
        let task = self.running.spawn(begin(handle.clone()));
        self.names.insert(task.id(), name);
    }

    /// Drops the results of tasks that have ended, so that they take no memory. Never resolves if there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing but results.
    async fn reap(&mut self) {
        match self.running.join_next_with_id().await {
            Some(ended) => self.ended(ended),
            None => std::future::pending().await,
        }
    }

    /// Notes how a task ended.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let name = self.names.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id));
        if let Err(error) = ended {
            tracing::error!(task = name, %error, "a task died");
            self.died = true;
        }
    }

    /// Waits for the tasks until `until` or `stop_now`, and aborts the rest. Returns whether all ended by themselves.
    async fn end(&mut self, until: Instant, handle: &RuntimeHandle) -> bool {
        loop {
            let ended = tokio::select! {
                biased;
                ended = self.running.join_next_with_id() => ended,
                () = sleep_until(until) => break,
                () = handle.now.cancelled() => break,
            };
            match ended {
                None => return !self.died,
                Some(ended) => self.ended(ended),
            }
        }
        tracing::warn!(tasks = self.running.len(), "tasks that did not end in time are given up");
        self.running.shutdown().await;
        false
    }
}
