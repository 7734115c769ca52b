//! Running a sidecar, and ending it in order: publishers stop accepting, workers stop polling and finish their messages,
//! published messages are sent, and only then the embedded server and the admin endpoint end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

#[cfg(feature = "dashboard")]
use crate::sidecar::dashboard;
use crate::sidecar::{
    admin::{self, state::AdminState},
    assemble::listener::limits,
    error::SidecarError,
    running::parts::{EndedWorker, Parts},
    start::Sidecar,
};
use dms_server::internal::limits::ADMIN_CONNECTIONS;
use dms_worker::runtime::{RuntimeReport, WorkerEnd};

/// How a sidecar ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SidecarReport {
    /// The workers' reports, in the order in which they were started. A worker that a reload restarted has the counts of all its
    /// runs.
    pub workers: Vec<EndedWorker>,
    /// Whether everything that had begun was finished within the grace period.
    pub drained: bool,
}

impl Sidecar {
    /// Runs until `stop`. A service that is not there is waited for, and so is a queue or a group, unless `on_worker_failure` says
    /// otherwise; a service that refuses the credentials at the start ends everything.
    ///
    /// # Errors
    /// When a worker could not go on; the others have been ended in order before.
    pub async fn run(self, stop: CancellationToken) -> Result<SidecarReport, SidecarError> {
        let Self { config, server, shared, runtime, admin, admin_guards, configuration, log } = self;
        let endings = Endings::default();

        if let Some(server) = server {
            let stop = endings.server.clone();
            shared.tasks.spawn(async move {
                if let Err(error) = server.run(stop.cancelled_owned()).await {
                    tracing::error!(%error, "the embedded server failed");
                }
            });
        }
        if let Some(listener) = admin {
            let state = AdminState::new(&config, &shared, runtime.handle(), configuration, log, admin_guards);
            let guarded = config.admin.token.is_some();
            let limits = limits(ADMIN_CONNECTIONS, guarded, Duration::from_secs(1));
            let router = admin::router(Arc::clone(&state));
            #[cfg(feature = "dashboard")]
            let router = dashboard::add(router, &state, &config, &listener);
            shared.tasks.spawn(listener.run(router, limits, endings.admin.clone()));
        }
        let report = runtime.run(stop.cancelled_owned()).await;

        endings.server.cancel();
        endings.admin.cancel();
        shared.tasks.close();
        shared.tasks.wait().await;
        ended(report, &shared.parts)
    }
}

/// The tokens of what ends last.
#[derive(Default)]
struct Endings {
    server: CancellationToken,
    admin: CancellationToken,
}

fn ended(report: RuntimeReport, parts: &Parts) -> Result<SidecarReport, SidecarError> {
    let drained = report.drained;
    let end = |end: WorkerEnd| match end.result {
        Ok(report) => Ok(EndedWorker { name: end.name, report }),
        Err(error) if error.is_panic() => Err(SidecarError::Died(end.name, error.to_string())),
        Err(error) => Err(SidecarError::Worker(end.name, error)),
    };
    let workers = report.workers.into_iter().map(end).collect::<Result<_, _>>()?;
    Ok(SidecarReport { workers: parts.with_kept_counts(workers), drained })
}
