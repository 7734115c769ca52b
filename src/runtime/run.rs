//! Running a runtime, and ending it in order.

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

/// What tasks and producers have at the end, when handlers have used up the grace period.
const LEAST_GRACE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Runs until `shutdown` resolves, [`RuntimeHandle::stop`] is called, or a worker fails for good and the
    /// [policy](OnWorkerFailure) says so; then everything ends in order.
    ///
    /// A worker that was stopped by its own handle ends alone. Must be called within a tokio runtime. Dropping the future ends
    /// everything at once: what is in flight comes again when its lease lapses.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> RuntimeReport {
        let Self { workers, tasks, on_failure, grace, handle } = self;
        let mut beside = Beside::begin(tasks, &handle);
        let mut team = Team::begin(workers, &handle);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = handle.stopping.cancelled() => break,
                () = &mut shutdown => handle.stop(),
                Some(failed) = team.next(), if !team.is_empty() => {
                    let ends_all = match on_failure {
                        OnWorkerFailure::StopAll => failed.is_some(),
                        OnWorkerFailure::GoOn => false,
                        OnWorkerFailure::Retry => failed == Some(Failed::Refused),
                    };
                    if ends_all || team.has_failed() {
                        handle.stop();
                    }
                }
            }
        }
        let until = after(Instant::now(), grace);
        while team.next().await.is_some() {}
        let until = until.max(Instant::now() + LEAST_GRACE);
        let tasks_ended = beside.end(until, &handle).await;
        let left = if handle.now.is_cancelled() { Duration::ZERO } else { until - Instant::now() };
        let producers = handle.producers.close(left).await;
        let workers = team.ends();
        let drained = tasks_ended
            && producers.iter().all(|end| end.report.unsent == 0)
            && workers.iter().all(|end| end.result.as_ref().is_ok_and(|report| report.drained));
        RuntimeReport { workers, producers, drained }
    }
}

/// How a worker failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// The service refuses the key, which the others use too.
    Refused,
    /// For another reason.
    Otherwise,
}

/// The workers that run, and how those ended that do not.
struct Team {
    running: JoinSet<Result<WorkerReport, WorkerError>>,
    places: HashMap<Id, usize>,
    names: Vec<String>,
    workers: Arc<[WorkerHandle]>,
    ends: Vec<Option<Result<WorkerReport, WorkerError>>>,
}

impl Team {
    fn begin(workers: Vec<Worker>, handle: &RuntimeHandle) -> Self {
        let names: Vec<String> = handle.workers.iter().map(|worker| worker.name().to_owned()).collect();
        let mut running = JoinSet::new();
        let mut places = HashMap::new();
        for (place, worker) in workers.into_iter().enumerate() {
            let stop = handle.stopping.clone();
            let task = running.spawn(async move { worker.run(stop.cancelled_owned()).await });
            places.insert(task.id(), place);
        }
        let ends = names.iter().map(|_| None).collect();
        Self { running, places, names, workers: handle.workers.clone(), ends }
    }

    /// Whether nobody is left, and not because each was told to stop.
    fn has_failed(&self) -> bool {
        self.is_empty() && self.ends.iter().flatten().any(Result::is_err)
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for the next worker to end, and says whether and how it failed; `None` when none is left. Cancel-safe.
    async fn next(&mut self) -> Option<Option<Failed>> {
        let ended = self.running.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let result = ended.map_or_else(|panic| Err(WorkerError::died(&panic)), |(_, result)| result);
        let place = self.places.get(&id).copied().unwrap_or_default();
        if let (Err(error), Some(worker)) = (&result, self.names.get(place)) {
            tracing::error!(worker, %error, "the worker has failed for good");
            if let Some(worker) = self.workers.get(place) {
                worker.set_failure(error);
            }
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
        let pairs = self.names.into_iter().zip(self.ends);
        pairs.filter_map(|(name, result)| result.map(|result| WorkerEnd { name, result })).collect()
    }
}

/// The tasks beside the workers.
struct Beside {
    running: JoinSet<()>,
    names: HashMap<Id, String>,
}

impl Beside {
    fn begin(tasks: Vec<Task>, handle: &RuntimeHandle) -> Self {
        let (mut running, mut names) = (JoinSet::new(), HashMap::new());
        for Task { name, begin } in tasks {
            let task = running.spawn(begin(handle.clone()));
            names.insert(task.id(), name);
        }
        Self { running, names }
    }

    /// Waits for the tasks until `until`, or until everything is to end now, and gives up those that are left. Says whether all
    /// ended by themselves.
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
