//! [`Runtime::run`]: runs the workers and tasks, and ends them in order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{
    OnWorkerFailure, Runtime, RuntimeHandle, Task,
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
    /// A worker that is stopped by its own handle ends alone.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops everything at once. Messages in flight are redelivered when their lease ends.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> RuntimeReport {
        let Self { workers, tasks, on_failure, grace, handle } = self;
        let mut extra_tasks = ExtraTasks::begin(tasks, &handle);
        let mut worker_tasks = WorkerTasks::begin(workers, &handle);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = handle.stopping.cancelled() => break,
                () = &mut shutdown => handle.stop(),
                Some(failed) = worker_tasks.next(), if !worker_tasks.is_empty() => {
                    let ends_all = match on_failure {
                        OnWorkerFailure::StopAll => failed.is_some(),
                        OnWorkerFailure::GoOn => false,
                        OnWorkerFailure::Retry => failed == Some(Failed::Refused),
                    };
                    if ends_all || worker_tasks.has_failed() {
                        handle.stop();
                    }
                }
            }
        }
        let until = after(Instant::now(), grace);
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
    places: HashMap<Id, usize>,
    workers: Arc<[WorkerHandle]>,
    ends: Vec<Option<Result<WorkerReport, WorkerError>>>,
}

impl WorkerTasks {
    fn begin(workers: Vec<Worker>, handle: &RuntimeHandle) -> Self {
        let mut running = JoinSet::new();
        let mut places = HashMap::new();
        for (place, worker) in workers.into_iter().enumerate() {
            let stop = handle.stopping.clone();
            let task = running.spawn(async move { worker.run(stop.cancelled_owned()).await });
            places.insert(task.id(), place);
        }
        let ends = handle.workers.iter().map(|_| None).collect();
        Self { running, places, workers: handle.workers.clone(), ends }
    }

    /// Returns whether no worker is left and at least one failed.
    fn has_failed(&self) -> bool {
        self.is_empty() && self.ends.iter().flatten().any(Result::is_err)
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
        let place = self.places.get(&id).copied().unwrap_or_default();
        if let (Err(error), Some(worker)) = (&result, self.workers.get(place)) {
            tracing::error!(worker = worker.name(), %error, "the worker has failed and does not try again");
            worker.set_failure(error);
        }
        let failed = result.as_ref().err().map(|error| match error.client_error() {
            Some(error) if error.is_auth() => Failed::Refused,
            _ => Failed::Otherwise,
        });
        if let Some(end) = self.ends.get_mut(place) {
            *end = Some(result);
        }
        Some(failed)
    }

    fn ends(self) -> Vec<WorkerEnd> {
        let end = |(worker, result): (&WorkerHandle, Option<_>)| {
            result.map(|result| WorkerEnd { name: worker.name().to_owned(), result })
        };
        self.workers.iter().zip(self.ends).filter_map(end).collect()
    }
}

/// The tasks that run next to the workers.
struct ExtraTasks {
    running: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl ExtraTasks {
    fn begin(tasks: Vec<Task>, handle: &RuntimeHandle) -> Self {
        let (mut running, mut names) = (JoinSet::new(), HashMap::new());
        for Task { name, begin } in tasks {
            let task = running.spawn(begin(handle.clone()));
            names.insert(task.id(), name);
        }
        Self { running, names }
    }

    /// Waits for the tasks until `until` or `stop_now`, and aborts the rest. Returns whether all ended by themselves.
    async fn end(&mut self, until: Instant, handle: &RuntimeHandle) -> bool {
        let mut well = true;
        loop {
            let ended = tokio::select! {
                biased;
                ended = self.running.join_next_with_id() => ended,
                () = sleep_until(until) => break,
                () = handle.now.cancelled() => break,
            };
            match ended {
                None => return well,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    let task = self.names.get(&error.id());
                    tracing::error!(task, %error, "a task died");
                    well = false;
                }
            }
        }
        tracing::warn!(tasks = self.running.len(), "tasks that did not end in time are given up");
        self.running.shutdown().await;
        false
    }
}
