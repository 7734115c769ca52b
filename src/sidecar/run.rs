//! Running a sidecar, and ending it in order: publishers take nothing more, workers stop polling and finish what they
//! have, what was published is sent, and only then the embedded server and the admin endpoint end.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admin::{self, Admin},
    error::SidecarError,
    listen::limits,
    start::{Sidecar, Unit},
};
use crate::worker::{Report, WorkerError};

/// How a sidecar ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The workers' reports, in the order in which they ended.
    pub workers: Vec<WorkerEnd>,
    /// Whether everything that had begun was finished within the grace period.
    pub drained: bool,
}

/// How a worker ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerEnd {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub report: Report,
}

type Finished = (String, Result<Report, WorkerError>);

impl Sidecar {
    /// Runs until `stop`. A service that is not there is waited for; one that refuses the credentials, or has no such
    /// queue, ends everything.
    ///
    /// # Errors
    /// When a worker could not go on; the others have been ended in order before.
    pub async fn run(self, stop: CancellationToken) -> Result<Ended, SidecarError> {
        let Self { config, server, client, units, publishers, admin, metrics, producers, stopping, tasks, log } = self;
        let grace = config.shutdown.grace.get();
        let endings = Endings::default();

        if let Some(server) = server {
            let stop = endings.server.clone();
            tasks.spawn(async move {
                if let Err(error) = server.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "the embedded server failed");
                }
            });
        }
        if let Some(listener) = admin {
            let router = admin::router(Admin::new(&config, client, &units, (metrics, producers), log));
            tasks.spawn(listener.run(router, limits(256, Duration::from_secs(1)), endings.admin.clone()));
        }
        let intake = TaskTracker::new();
        let open: Vec<_> = publishers.into_iter().map(|publisher| publisher.spawn(&intake, &stopping)).collect();
        intake.close();

        let mut workers = JoinSet::new();
        for unit in units {
            start(unit, &mut workers, &tasks, &stopping);
        }
        let outcome = supervise(&mut workers, &stop, &stopping).await;

        intake.wait().await;
        let mut unsent = 0;
        for producer in open {
            unsent += producer.close(grace).await;
        }
        endings.server.cancel();
        endings.admin.cancel();
        tasks.close();
        tasks.wait().await;
        let workers = outcome?;
        let drained = unsent == 0 && workers.iter().all(|end| end.report.drained);
        Ok(Ended { workers, drained })
    }
}

/// The tokens of what ends last.
#[derive(Default)]
struct Endings {
    server: CancellationToken,
    admin: CancellationToken,
}

fn start(unit: Unit, workers: &mut JoinSet<Finished>, tasks: &TaskTracker, stopping: &CancellationToken) {
    let Unit { name, worker, throttle, app, .. } = unit;
    if let Some(watched) = app {
        // Before the worker's first poll, so that nothing is fetched for an application that is not there.
        throttle.app_down();
        let (app, target, stop) = (watched.app, watched.target, stopping.clone());
        tasks.spawn(async move {
            let target = Arc::clone(&target);
            app.watch(throttle, watched.watching, || target.look(), stop).await;
        });
    }
    let stop = stopping.clone();
    workers.spawn(async move { (name, worker.run(stop.cancelled_owned()).await) });
}

/// Waits for the workers, and for `stop`. The first one that fails ends them all.
async fn supervise(
    workers: &mut JoinSet<Finished>,
    stop: &CancellationToken,
    stopping: &CancellationToken,
) -> Result<Vec<WorkerEnd>, SidecarError> {
    let mut ends = Vec::new();
    let mut failure = None;
    loop {
        let finished = tokio::select! {
            () = stop.cancelled(), if !stopping.is_cancelled() => {
                stopping.cancel();
                continue;
            }
            Some(finished) = workers.join_next() => finished,
            // All have ended, by themselves or by the admin endpoint: the process ends when it is told to.
            else => {
                stop.cancelled().await;
                break;
            }
        };
        match finished {
            Ok((name, Ok(report))) => ends.push(WorkerEnd { name, report }),
            Ok((name, Err(error))) => failure = failure.or(Some(SidecarError::Worker(name, error))),
            Err(panic) => failure = failure.or(Some(SidecarError::Died("?".to_owned(), panic.to_string()))),
        }
        if failure.is_some() {
            stopping.cancel();
        }
        if workers.is_empty() && stopping.is_cancelled() {
            break;
        }
    }
    stopping.cancel();
    failure.map_or(Ok(ends), Err)
}
