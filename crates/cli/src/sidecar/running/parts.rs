//! [`Parts`]: the workers, publishers and outboxes that run now.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    config,
    sidecar::{
        backpressure::{app::App, throttle::Throttle},
        deliver::http::credentials::Credentials,
        observe::recorder::Recorder,
        running::publisher::{PublisherKey, RunningPublisher},
    },
};
use dms_protocol::internal::current::Current;
use dms_worker::worker::WorkerReport;

/// The workers, publishers and outboxes that run now, in the order of the configuration. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    workers: Current<Vec<Arc<RunningWorker>>>,
    publishers: Current<Vec<Arc<RunningPublisher>>>,
    outboxes: Current<Vec<Arc<RunningOutbox>>>,
    /// The counts of workers that were removed or replaced, by their names.
    ended: Arc<Mutex<BTreeMap<String, WorkerReport>>>,
    /// Whether an operator has stopped all workers for good.
    drained: Arc<AtomicBool>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            workers: Current::new(Vec::new()),
            publishers: Current::new(Vec::new()),
            outboxes: Current::new(Vec::new()),
            ended: Arc::default(),
            drained: Arc::default(),
        }
    }
}

impl Parts {
    pub(crate) fn workers(&self) -> Arc<Vec<Arc<RunningWorker>>> {
        self.workers.get()
    }

    pub(crate) fn worker(&self, name: &str) -> Option<Arc<RunningWorker>> {
        self.workers.get().iter().find(|worker| worker.name == name).cloned()
    }

    pub(crate) fn set_workers(&self, workers: Vec<Arc<RunningWorker>>) {
        self.workers.set(workers);
    }

    /// Adds a started worker, in the place of its predecessor of the same name.
    pub(crate) fn show(&self, worker: &Arc<RunningWorker>) {
        self.workers.update(|workers| {
            let others = workers.iter().filter(|other| other.name != worker.name).cloned();
            others.chain([Arc::clone(worker)]).collect()
        });
    }

    /// Removes a worker.
    pub(crate) fn hide(&self, worker: &RunningWorker) {
        self.workers
            .update(|workers| workers.iter().filter(|other| !std::ptr::eq(&***other, worker)).cloned().collect());
    }

    pub(crate) fn publishers(&self) -> Arc<Vec<Arc<RunningPublisher>>> {
        self.publishers.get()
    }

    pub(crate) fn publisher(&self, key: PublisherKey) -> Option<Arc<RunningPublisher>> {
        self.publishers.get().iter().find(|publisher| publisher.key == key).cloned()
    }

    pub(crate) fn set_publishers(&self, publishers: Vec<Arc<RunningPublisher>>) {
        self.publishers.set(publishers);
    }

    pub(crate) fn outboxes(&self) -> Arc<Vec<Arc<RunningOutbox>>> {
        self.outboxes.get()
    }

    pub(crate) fn set_outboxes(&self, outboxes: Vec<Arc<RunningOutbox>>) {
        self.outboxes.set(outboxes);
    }

    /// Keeps the counts of a worker that was removed or replaced.
    pub(crate) fn keep_counts(&self, name: &str, report: WorkerReport) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match ended.get_mut(name) {
            Some(sum) => *sum += report,
            None => drop(ended.insert(name.to_owned(), report)),
        }
    }

    /// Adds the kept counts to the counts of the workers that ran until the end.
    pub(crate) fn with_kept_counts(&self, mut workers: Vec<EndedWorker>) -> Vec<EndedWorker> {
        let mut kept = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &mut workers {
            if let Some(report) = kept.remove(&worker.name) {
                worker.report += report;
            }
        }
        workers.extend(kept.into_iter().map(|(name, report)| EndedWorker { name, report }));
        workers
    }

    /// Stops all workers for good, and returns them. A reload starts no worker afterwards.
    pub(crate) fn drain(&self) -> Arc<Vec<Arc<RunningWorker>>> {
        self.drained.store(true, Relaxed);
        let workers = self.workers();
        workers.iter().for_each(|worker| worker.throttle.worker().stop());
        workers
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }
}

/// A worker that runs, with everything around it.
#[derive(Debug)]
pub(crate) struct RunningWorker {
    pub(crate) name: String,
    pub(crate) throttle: Throttle,
    pub(crate) recorder: Arc<Recorder>,
    /// The application that its handler calls, if it calls one that can be down.
    pub(crate) app: Option<Arc<App>>,
    /// The headers and the signing key for this application.
    pub(crate) credentials: Option<Current<Credentials>>,
    /// Whether it reads the group's dead letters.
    pub(crate) dead_letters: bool,
    /// The lease that its settings ask for.
    #[cfg(feature = "dashboard")]
    pub(crate) ack_wait: Duration,
    /// A worker whose last successful poll is older than this is not ready.
    pub(crate) stale_after: Duration,
    /// Cancelled when the worker must end without waiting for its application.
    pub(crate) stop: CancellationToken,
    /// Whether it has started, for `/startupz`.
    pub(crate) begun: AtomicBool,
    /// Whether it drains because the configuration has changed.
    pub(crate) retiring: AtomicBool,
    /// Cancelled when it has drained.
    pub(crate) ended: CancellationToken,
}

impl RunningWorker {
    /// Whether both read the same messages.
    pub(crate) fn has_stream_of(&self, other: &Self) -> bool {
        let of = |worker: &Self| {
            let handle = worker.throttle.worker();
            (handle.queue().to_owned(), handle.group().to_owned(), worker.dead_letters)
        };
        of(self) == of(other)
    }
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

/// A relay that sends the rows of an outbox.
#[derive(Debug)]
pub(crate) struct RunningOutbox {
    pub(crate) settings: config::Outbox,
    /// Cancelled when it is to end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when it has ended.
    pub(crate) ended: CancellationToken,
}
