//! [`Worker`]: looks up its queue and group, runs, and drains.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::worker::{
    error::WorkerError,
    handle::WorkerHandle,
    limit::shared::SharedLimit,
    observe::report::WorkerReport,
    pipeline::{drain, poller},
    session::Sessions,
    setup::Setup,
};

/// Consumes one queue for one group. Workers are stateless: any number of them can share a group.
///
/// ```no_run
/// use dms_worker::{Client, Worker, worker::handler_fn};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder("http://127.0.0.1:9400", "local").build()?;
/// let handler = handler_fn(|delivery| async move { Ok(println!("{:?}", delivery.body())) });
/// let report = Worker::builder(client).queue("orders").group("billing").handler(handler)
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

    /// Settings that will work but are likely not meant, each with the remedy. [`WorkerBuilder::build`](super::WorkerBuilder::build) logs
    /// them, and the start of the worker logs those that depend on the queue. Before the start, [`check`](Self::check) finds those out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.setup.settings.warnings();
        warnings.extend(self.setup.control.warnings());
        warnings
    }

    /// Looks up the queue and the group, and everything else that the settings name. Afterwards [`warnings`](Self::warnings) also says
    /// what depends on them: where rejected messages go, for example.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when the service cannot be reached.
    pub async fn check(&self) -> Result<(), WorkerError> {
        let targets = self.setup.look_up().await?;
        self.setup.check_queue(&targets.queue)
    }

    /// A handle that steers the worker while it runs.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle(self.setup.control.clone())
    }

    /// Takes its places from a ceiling that others share.
    pub(crate) fn join(&self, ceiling: &Arc<SharedLimit>) {
        self.setup.control.inflight.join(ceiling.join(self.setup.settings.weight));
    }

    /// How long handlers may go on after the shutdown signal.
    pub(crate) fn grace(&self) -> Duration {
        self.setup.settings.grace
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.setup.settings.grace = grace;
    }

    /// From now on it waits for a queue or group that does not exist, and tries again after a refusal.
    pub(crate) fn persist(&mut self) {
        self.setup.persistent = true;
    }

    /// Consumes until `shutdown` resolves or [`WorkerHandle::stop`] is called, then drains: the polls in flight are ended and their
    /// answers waited for, running handlers finish within the grace period and their lease, what is left is stopped, and every
    /// acknowledgement that is due is sent. What did not start is handed back, without a failure counted where the service can do
    /// that. A service that cannot end polls is waited for, within the grace period.
    ///
    /// While the service cannot be reached it waits and tries again, from the first call on. A queue or group that is deleted while
    /// the worker runs is looked up again by its name until it is there; [`WorkerHandle::failure`] says so meanwhile.
    ///
    /// Dropping the future stops everything at once: what is in flight comes again when its lease lapses.
    ///
    /// # Errors
    /// When the queue or the group does not exist, the credentials are refused, or the queue's mode contradicts the settings.
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
                    // Not dropped: what the last polls bring has to be known before the batches are waited for.
                    let (polls, pollers) = supervised.await;
                    break (polls.map_err(WorkerError::from), pollers);
                }
                ended = supervised.as_mut() => ended,
            };
            match polls {
                Ok(()) => break (Ok(()), pollers),
                Err(error) if setup.looks_again(&error) => {
                    // Waited for: until then they hold places.
                    pollers.shutdown().await;
                    sessions.lost(error);
                }
                Err(error) => break (Err(error.into()), pollers),
            }
        };
        control.stopping.cancel();
        let mut pollers = Some(pollers);
        // The last one is the one that polled.
        let drains = sessions.newest_first().map(|context| drain::drain(context, pollers.take().unwrap_or_default()));
        let drained = join_all(drains).await.into_iter().all(|drained| drained);
        let left = if drained { 0 } else { control.inflight.in_flight() as u64 };
        let report = WorkerReport { left, ..control.counters.report(drained) };
        tracing::info!(worker = control.name, ?report, "the worker has stopped");
        ended.map(|()| report)
    }
}
