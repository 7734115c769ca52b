//! [`WorkerUnit`]: a worker with its handler and what stands around it.

use std::{
    ffi::OsString,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

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
        running::{parts::RunningWorker, shared::Shared},
    },
};
use dms_worker::{
    client::Client,
    runtime::{AddWorkerError, RuntimeHandle},
    worker::{Worker, WorkerBuilder, WorkerMetrics},
};

/// A worker that is ready to start.
#[derive(Debug)]
pub(crate) struct WorkerUnit {
    worker: Worker,
    /// The state of the running worker.
    pub(crate) running: Arc<RunningWorker>,
    app: Option<WatchedApp>,
}

/// The application of a worker, and how it is watched.
#[derive(Debug)]
struct WatchedApp {
    app: Arc<App>,
    target: Arc<Target>,
    watching: Watching,
}

impl WorkerUnit {
    /// Starts the worker, and what watches its application.
    ///
    /// # Errors
    /// When the shared limits have no room for it, or the process is stopping.
    pub(crate) fn start(self, runtime: &RuntimeHandle, metrics: &WorkerMetrics) -> Result<(), AddWorkerError> {
        let Self { worker, running, app } = self;
        if let Some(WatchedApp { app, target, watching }) = app {
            let (throttle, stop) = (running.throttle.clone(), running.stop.clone());
            // Before the worker's first poll, so that nothing is fetched for an application that is not there.
            throttle.app_down();
            runtime.add_task("application", move |_| async move {
                app.watch(throttle, watching, || target.look(), stop).await;
            });
        }
        let handle = runtime.add_worker(worker).inspect_err(|_| running.stop.cancel())?;
        metrics.watch(handle);
        Ok(())
    }
}

/// Puts a worker together.
///
/// # Errors
/// When its settings contradict each other, or its application or program cannot work.
pub(crate) fn unit(worker: &config::Worker, config: &Config, shared: &Shared) -> Result<WorkerUnit, SidecarError> {
    let name = worker.label();
    let recorder = Arc::<Recorder>::default();
    let backpressure = Backpressure::default();
    let source = format!("/dms/{}/{}", config.dms.project_id, worker.queue);
    let stop = shared.stopping.child_token();
    let surroundings =
        Surroundings { stopping: &stop, tasks: &shared.tasks, withheld: process::withheld(&config.secret_variables) };
    let builder = Worker::builder(Client::clone(&shared.client.get())).queue(&worker.queue).group(&worker.group);
    let (builder, app) = with_handler(builder, worker, source, &backpressure, &surroundings)?;
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
        .observer(shared.metrics.observer(&name, &worker.queue, &worker.group))
        .build()
        .map_err(|error| SidecarError::Settings(name.clone(), error))?;
    let throttle = Throttle::new(built.handle());
    backpressure.connect(throttle.clone());
    let dead_letters = worker.source == config::Source::DeadLetters;
    let stale_after = worker.poll_wait.get() + Duration::from_secs(60);
    let running = Arc::new(RunningWorker {
        name,
        throttle,
        recorder,
        app: app.as_ref().map(|watched| watched.app.clone()),
        credentials: app.as_ref().map(|watched| watched.target.credentials().clone()),
        dead_letters,
        #[cfg(feature = "dashboard")]
        ack_wait: worker.ack_wait(),
        stale_after,
        stop,
        begun: AtomicBool::new(false),
        retiring: AtomicBool::new(false),
        ended: CancellationToken::new(),
    });
    Ok(WorkerUnit { worker: built, running, app })
}

/// What a handler needs besides its settings.
struct Surroundings<'a> {
    /// Cancelled when the worker is to end.
    stopping: &'a CancellationToken,
    /// What ends after the workers.
    tasks: &'a TaskTracker,
    /// The variables that programs do not inherit.
    withheld: Arc<[OsString]>,
}

/// Sets the handler of a worker; returns its application too, if it has one.
fn with_handler(
    builder: WorkerBuilder,
    worker: &config::Worker,
    source: String,
    backpressure: &Backpressure,
    Surroundings { stopping, tasks, withheld }: &Surroundings<'_>,
) -> Result<(WorkerBuilder, Option<WatchedApp>), SidecarError> {
    if let Some(settings) = &worker.handler.http {
        let target = Target::new(settings, worker.concurrency);
        let target = Arc::new(target.map_err(|error| SidecarError::Http(worker.label(), error))?);
        let delivery = HttpDelivery::new(settings, target.clone(), source, backpressure.clone(), (*stopping).clone());
        let watching = Watching { interval: settings.health_interval.get(), always: target.has_health_url() };
        let watched = WatchedApp { app: delivery.app(), target, watching };
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
