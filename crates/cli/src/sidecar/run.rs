//! Running a sidecar, and ending it in order: publishers stop accepting, workers stop polling and finish their messages,
//! published messages are sent, and only then the embedded server and the admin endpoint end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Limits},
    sidecar::{
        admin::{self, state::AdminState},
        assemble::listener::limits,
        assemble::unit::WorkerUnit,
        error::SidecarError,
        start::Sidecar,
    },
};
use dms_server::internal::limits::ADMIN_CONNECTIONS;
use dms_worker::{
    runtime::{OnWorkerFailure, Runtime, RuntimeBuilder, RuntimeReport, Sharing},
    worker::WorkerReport,
};

/// How a sidecar ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SidecarReport {
    /// The workers' reports, in the order of the configuration.
    pub workers: Vec<EndedWorker>,
    /// Whether everything that had begun was finished within the grace period.
    pub drained: bool,
}

/// How a worker ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndedWorker {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub report: WorkerReport,
}

impl Sidecar {
    /// Runs until `stop`. A service that is not there is waited for, and so is a queue or a group, unless `on_worker_failure` says
    /// otherwise; a service that refuses the credentials at the start ends everything.
    ///
    /// # Errors
    /// When a worker could not go on; the others have been ended in order before.
    pub async fn run(self, stop: CancellationToken) -> Result<SidecarReport, SidecarError> {
        let Self {
            config,
            server,
            client,
            units,
            publishers,
            relays,
            admin,
            admin_guards,
            metrics,
            producers,
            connections,
            stopping,
            tasks,
            log,
        } = self;
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
            let router = admin::router(AdminState::new(
                &config,
                client,
                &units,
                (metrics, producers, connections),
                log,
                admin_guards,
            ));
            let guarded = config.admin.token.is_some();
            let limits = limits(ADMIN_CONNECTIONS, guarded, Duration::from_secs(1));
            tasks.spawn(listener.run(router, limits, endings.admin.clone()));
        }
        let mut runtime = Runtime::builder().stop_with(stopping).shutdown_grace(config.shutdown.grace.get());
        runtime = shared(runtime, &config.limits).on_worker_failure(match config.on_worker_failure {
            config::OnWorkerFailure::Continue => OnWorkerFailure::Retry,
            config::OnWorkerFailure::Stop => OnWorkerFailure::StopAll,
        });
        for publisher in publishers {
            runtime = runtime.task("publisher", |runtime| publisher.run(runtime));
        }
        runtime = relays.add_to(runtime);
        runtime = units.into_iter().fold(runtime, add);
        let report = runtime.build()?.run(stop.cancelled_owned()).await;

        endings.server.cancel();
        endings.admin.cancel();
        tasks.close();
        tasks.wait().await;
        ended(report)
    }
}

/// The tokens of what ends last.
#[derive(Default)]
struct Endings {
    server: CancellationToken,
    admin: CancellationToken,
}

/// Applies the shared limits.
fn shared(runtime: RuntimeBuilder, limits: &Limits) -> RuntimeBuilder {
    let sharing = match limits.sharing {
        config::Sharing::Weighted => Sharing::Weighted,
        config::Sharing::Strict => Sharing::Strict,
    };
    runtime.max_in_flight(limits.in_flight).max_in_flight_bytes(limits.bytes).sharing(sharing)
}

/// Adds a worker, and what watches its application.
fn add(runtime: RuntimeBuilder, unit: WorkerUnit) -> RuntimeBuilder {
    let WorkerUnit { worker, throttle, app, .. } = unit;
    let runtime = runtime.worker(worker);
    let Some(watched) = app else { return runtime };
    // Before the worker's first poll, so that nothing is fetched for an application that is not there.
    throttle.app_down();
    runtime.task("application", move |runtime| async move {
        let target = Arc::clone(&watched.target);
        watched.app.watch(throttle, watched.watching, || target.look(), runtime.stop_token()).await;
    })
}

fn ended(report: RuntimeReport) -> Result<SidecarReport, SidecarError> {
    let drained = report.drained;
    let end = |end: dms_worker::runtime::WorkerEnd| match end.result {
        Ok(report) => Ok(EndedWorker { name: end.name, report }),
        Err(error) if error.is_panic() => Err(SidecarError::Died(end.name, error.to_string())),
        Err(error) => Err(SidecarError::Worker(end.name, error)),
    };
    let workers = report.workers.into_iter().map(end).collect::<Result<_, _>>()?;
    Ok(SidecarReport { workers, drained })
}
