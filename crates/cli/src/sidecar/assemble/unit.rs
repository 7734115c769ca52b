//! [`WorkerUnit`]: a worker with its handler and what stands around it.

use std::{ffi::OsString, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{
        self, CommandMode, Config,
        worker_settings::{batching, rate, settings},
    },
    sidecar::{
        assemble::deduplicate,
        backpressure::{
            app::{App, Watching},
            throttle::{Backpressure, Throttle},
        },
        deliver::{
            http::{HttpBatches, HttpDelivery, target::Target},
            log::LogDelivery,
            program::{
                command::{CommandDelivery, ProgramCommand},
                lines::LinesDelivery,
                process,
            },
        },
        error::SidecarError,
        observe::recorder::Recorder,
    },
};
use dms_worker::{
    client::Client,
    worker::{Worker, WorkerBuilder, WorkerMetrics},
};

/// A worker with what stands around it.
#[derive(Debug)]
pub(crate) struct WorkerUnit {
    pub(crate) name: String,
    pub(crate) worker: Worker,
    pub(crate) throttle: Throttle,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) app: Option<Watched>,
    /// Whether it reads the group's dead letters.
    pub(crate) dead_letters: bool,
    /// A worker whose last successful poll is older than this is not ready.
    pub(crate) stale_after: Duration,
}

/// The application of a worker, and how it is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) app: Arc<App>,
    pub(crate) target: Arc<Target>,
    pub(crate) watching: Watching,
}

/// What all handlers share.
pub(crate) struct Surroundings<'a> {
    /// Cancelled when the process begins to end.
    pub(crate) stopping: &'a CancellationToken,
    /// What ends after the workers.
    pub(crate) tasks: &'a TaskTracker,
    /// The variables that programs do not inherit.
    pub(crate) withheld: Arc<[OsString]>,
}

/// Puts a worker together.
///
/// # Errors
/// When its settings contradict each other, or its application or program cannot work.
pub(crate) fn unit(
    worker: &config::Worker,
    config: &Config,
    client: &Client,
    metrics: &WorkerMetrics,
    surroundings: &Surroundings<'_>,
) -> Result<WorkerUnit, SidecarError> {
    let name = worker.label();
    let recorder = Arc::<Recorder>::default();
    let backpressure = Backpressure::default();
    let source = format!("/dms/{}/{}", config.dms.project_id, worker.queue);
    let builder = Worker::builder(client.clone()).queue(&worker.queue).group(&worker.group);
    let (builder, app) = with_handler(builder, worker, source, &backpressure, surroundings)?;
    let rate = rate(worker).map_err(|error| SidecarError::Settings(name.clone(), error))?;
    let builder = settings(builder, worker).shutdown_grace(config.shutdown.grace.get());
    // The outermost layer: a retry within the lease keeps the claim of its key.
    let builder = match deduplicate::layer(worker) {
        Ok(Some(layer)) => builder.layer(layer),
        Ok(None) => builder,
        Err(error) => return Err(SidecarError::Deduplicate(name, error.to_string())),
    };
    let built = builder
        .rate_limit(rate)
        .observer(recorder.clone())
        .observer(metrics.observer(&name, &worker.queue, &worker.group))
        .build()
        .map_err(|error| SidecarError::Settings(name.clone(), error))?;
    metrics.watch(built.handle());
    let throttle = Throttle::new(built.handle());
    backpressure.connect(throttle.clone());
    let dead_letters = worker.source == config::Source::DeadLetters;
    let stale_after = worker.poll_wait.get() + Duration::from_secs(60);
    Ok(WorkerUnit { name, worker: built, throttle, recorder, app, dead_letters, stale_after })
}

/// Sets the handler of a worker; returns its application too, if it has one.
fn with_handler(
    builder: WorkerBuilder,
    worker: &config::Worker,
    source: String,
    backpressure: &Backpressure,
    Surroundings { stopping, tasks, withheld }: &Surroundings<'_>,
) -> Result<(WorkerBuilder, Option<Watched>), SidecarError> {
    if let Some(settings) = &worker.handler.http {
        let target = Target::new(settings, worker.concurrency);
        let target = Arc::new(target.map_err(|error| SidecarError::Http(worker.label(), error))?);
        let delivery = HttpDelivery::new(settings, target.clone(), source, backpressure.clone(), (*stopping).clone());
        let watching = Watching { interval: settings.health_interval.get(), always: target.has_health_url() };
        let watched = Watched { app: delivery.app(), target, watching };
        let builder = match settings.batch {
            None => builder.handler(delivery),
            Some(batch) => builder.batch_handler(HttpBatches(delivery)).batching(batching(batch)),
        };
        return Ok((builder, Some(watched)));
    }
    let Some(command) = &worker.handler.command else {
        let log = LogDelivery::new(worker.handler.log.unwrap_or_default());
        return Ok((builder.handler(log), None));
    };
    let timeout = command.timeout.map(config::Span::get);
    let run = ProgramCommand { program: command.run.clone(), withheld: Arc::clone(withheld) };
    process::find(&run.program).map_err(|error| SidecarError::Program(worker.label(), error))?;
    let builder = match command.mode {
        CommandMode::PerMessage => builder.handler(CommandDelivery::new(run, timeout, backpressure.clone())),
        CommandMode::JsonLines => builder.handler(LinesDelivery::new(run, timeout, backpressure.clone(), tasks)),
    };
    Ok((builder, None))
}
