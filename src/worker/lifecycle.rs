//! [`Worker`]: looks up its queue and group, consumes, and drains.

use std::future::Future;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::worker::{
    error::WorkerError,
    handle::WorkerHandle,
    observe::report::WorkerReport,
    pipeline::{drain, poller},
    session::Sessions,
    setup::Setup,
};

/// Consumes one queue for one consumer group. Workers keep no state in the service, so any number of them can share a
/// group.
///
/// ```no_run
/// use dms_worker::{Client, Delivery, Worker, handler_fn};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let report = Worker::builder(client)
///     .queue("orders")
///     .group("billing")
///     .handler(handler_fn(|delivery: Delivery| async move { Ok(println!("{:?}", delivery.body())) }))
///     .concurrency(64)
///     .build()?
///     .run(async { drop(tokio::signal::ctrl_c().await) })
///     .await?;
/// println!("{} messages handled", report.done);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Worker {
    setup: Setup,
}

impl Worker {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup }
    }

    /// Settings that work but are probably a mistake, each with the remedy.
    ///
    /// [`WorkerBuilder::build`](super::WorkerBuilder::build) logs them, and the start of the worker logs warnings that
    /// depend on the queue. [`check`](Self::check) finds the latter before the start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.setup.settings.warnings();
        warnings.extend(self.setup.control.warnings());
        warnings
    }

    /// Looks up the queue, the group, and everything else that the settings name. Afterwards,
    /// [`warnings`](Self::warnings) includes warnings that depend on the queue, for example on its dead letters.
    ///
    /// # Errors
    /// As [`run`](Self::run), and if the service cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect, because the check changes nothing.
    pub async fn check(&self) -> Result<(), WorkerError> {
        let targets = self.setup.look_up().await?;
        self.setup.check_queue(&targets.queue)
    }

    /// A handle that controls the worker while it runs.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle(self.setup.control.clone())
    }

    /// Consumes until `shutdown` resolves or [`WorkerHandle::stop`] is called, and then drains:
    ///
    /// 1. Polls in flight are ended, and their replies are awaited. A service that cannot end polls is waited for,
    ///    within the grace period.
    /// 2. Messages whose handler has not started are handed back, without counting a failure where the service supports
    ///    that.
    /// 3. Running handlers finish, within the grace period and their lease. The rest are stopped.
    /// 4. Every acknowledgement that is due is sent.
    ///
    /// While the service cannot be reached, the worker retries, from the first call on. A queue or group that is
    /// deleted while the worker runs is looked up by its name until it exists again; meanwhile
    /// [`WorkerHandle::failure`] says so.
    ///
    /// # Errors
    /// If the queue or the group does not exist, the credentials are refused, or the queue's mode contradicts the
    /// settings.
    ///
    /// # Cancel safety
    /// Dropping the future stops everything at once. Messages in flight are redelivered when their lease expires.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<WorkerReport, WorkerError> {
        let Self { setup } = self;
        let control = setup.control.clone();
        let _stop_all = control.interrupt.clone().drop_guard();
        let stop = async {
            tokio::select! {
                () = shutdown => {}
                () = control.stopping.cancelled() => {}
            }
        };
        tokio::pin!(stop);
        let mut sessions = Sessions::default();
        let (ended, pollers) = loop {
            tokio::select! {
                biased;
                () = &mut stop => break (Ok(()), JoinSet::new()),
                found = sessions.find(&setup) => match found {
                    Ok(()) => {}
                    Err(error) => break (Err(error), JoinSet::new()),
                },
            }
            let Some(context) = sessions.current() else { break (Ok(()), JoinSet::new()) };
            let supervised = poller::supervise(&context);
            tokio::pin!(supervised);
            let (polls, mut pollers) = tokio::select! {
                biased;
                () = &mut stop => {
                    control.stopping.cancel();
                    // Awaited and not dropped, because the batches of the last polls have to be known before the
                    // batches are waited for.
                    let (polls, pollers) = supervised.await;
                    break (polls.map_err(WorkerError::from), pollers);
                }
                ended = supervised.as_mut() => ended,
            };
            match polls {
                Ok(()) => break (Ok(()), pollers),
                Err(error) if setup.looks_again(&error) => {
                    // Awaited, because the pollers hold capacity until they have ended.
                    pollers.shutdown().await;
                    sessions.lost(error);
                }
                Err(error) => break (Err(error.into()), pollers),
            }
        };
        control.stopping.cancel();
        let mut pollers = Some(pollers);
        // The pollers belong to the newest session.
        let drains = sessions.newest_first().map(|context| drain::drain(context, pollers.take().unwrap_or_default()));
        let drained = join_all(drains).await.into_iter().all(|drained| drained);
        let left = if drained { 0 } else { control.inflight.in_flight() as u64 };
        let report = WorkerReport { left, ..control.counters.report(drained) };
        tracing::info!(
            worker = control.name,
            received = report.received,
            done = report.done,
            failed = report.failed,
            rejected = report.rejected,
            deferred = report.deferred,
            acknowledged = report.acknowledged,
            redelivered = report.redelivered,
            dead_lettered = report.dead_lettered,
            stuck = report.stuck,
            left = report.left,
            drained = report.drained,
            "the worker has stopped"
        );
        ended.map(|()| report)
    }
}
