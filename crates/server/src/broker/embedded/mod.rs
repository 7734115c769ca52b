//! The broker that ships: one process, state in memory, every change committed to a store before it is answered.
//!
//! # How a change travels
//! A call looks at the state behind its lock, puts `Command` into the committer's queue, and waits. The
//! `committer` gathers what waits, `prepare`s records, has the store commit them as one, `apply`s them to the state and
//! answers. Nothing is visible before it is durable, and a commit that fails changes nothing.
//!
//! `poll` hands out leases, which live in memory alone: after a restart they are gone and their messages available.
//! `timer` turns lapsed leases, ended delays and retention into work of the same kind; `retention` finds what every group has settled;
//! `purge` deletes on request; `maintenance` has the store tidy up;
//! `heartbeat` extends leases by the time in which the process did not run; `damage` tells of damaged messages and skips them for good;
//! `health` keeps whether the store works.
//! `stream`, `cursor`, `set_aside`, `lease`, `rule` and `receipt` are plain values without clocks or tasks.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

pub use self::config::{EmbeddedConfig, FailureCounting, StartPosition};
pub use crate::store::OpenError;
#[cfg(feature = "disk")]
use crate::store::disk::DiskStore;
use crate::{
    broker::{
        Ack, AckCounts, Broker, BrokerError, BrokerStats, DamagedMessage, GroupList, GroupPath, LeaseRequest,
        LeasedMessage, NewMessage, Peeked, Purged, QueueOverview, Quotas, RetentionChange, StorageTrouble, Stream,
        Usage,
        embedded::{
            command::{Command, Request},
            core::Core,
            state::State,
            state::pause::{PauseClock, PauseDetector},
        },
    },
    clock::Clock,
    store::{Snapshot, Store, memory::MemoryStore},
};
use dms_protocol::queue::{CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag};

mod background;
mod command;
mod commit;
mod config;
mod core;
mod health;
mod operations;
mod state;
#[cfg(test)]
pub(crate) mod tests;

/// A DMS broker inside this process, in memory or on disk.
///
/// Dropping it stops it as a crash would: what was answered is kept (on disk), what was not may be lost, leases are gone.
/// [`Broker::close`] is the orderly way.
pub struct EmbeddedBroker {
    core: Arc<Core>,
    /// Until it is closed.
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Debug)]
struct Tasks {
    committer: JoinHandle<()>,
    timer: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    /// `None` where no pause can be noticed.
    heartbeat: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Stops what watches and tidies: neither owes anybody an answer.
    fn stop_helpers(&self) {
        self.timer.abort();
        self.maintenance.abort();
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.abort();
        }
    }
}

impl EmbeddedBroker {
    /// A broker that keeps everything in memory; it is gone with the process.
    ///
    /// Messages stay for their retention, acknowledged or not, because groups that are created later still get them:
    /// what is sent within 72 hours has to fit into memory, unless [`EmbeddedConfig::retention`] is shorter.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn in_memory(config: EmbeddedConfig, clock: Clock) -> Self {
        Self::start(Arc::new(MemoryStore::default()), Snapshot::default(), config, clock)
    }

    /// A broker that keeps everything in a directory, created if it is missing. What is answered there is on the disk;
    /// after a crash it opens without repair, its leases gone and their messages available.
    ///
    /// # Errors
    /// When the directory cannot be used or is in use, or the file in it is damaged, foreign or of a later version.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "disk")]
    pub async fn open(dir: &Path, config: EmbeddedConfig, clock: Clock) -> Result<Self, OpenError> {
        let dir = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || DiskStore::open(&dir)).await;
        let (store, snapshot) = match opened {
            Ok(opened) => opened?,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return Err(OpenError::Stopped),
            },
        };
        Ok(Self::start(Arc::new(store), snapshot, config, clock))
    }

    /// Refuses: without the feature `disk` messages are kept in memory only.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "disk"))]
    pub async fn open(dir: &Path, _: EmbeddedConfig, _: Clock) -> Result<Self, OpenError> {
        Err(OpenError::NoDisk { dir: dir.to_owned() })
    }

    fn start(store: Arc<dyn Store>, snapshot: Snapshot, config: EmbeddedConfig, clock: Clock) -> Self {
        Self::start_with(PauseClock::of(&clock), store, snapshot, config, clock)
    }

    fn start_with(
        witness: PauseClock,
        store: Arc<dyn Store>,
        snapshot: Snapshot,
        config: EmbeddedConfig,
        clock: Clock,
    ) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel::<Request>();
        // Set meanwhile, the wall clock does not move what is due, nor when messages entered.
        let clock = clock.steady();
        let mut state = State::restore(snapshot, &config);
        state.bound_entry_times(clock.now_ms());
        state.pauses = PauseDetector::new(witness);
        let core = Arc::new(Core::new(state, store, config, clock, requests));
        let tasks = Tasks {
            committer: tokio::spawn(commit::committer::run(core.clone(), waiting)),
            timer: tokio::spawn(background::timer::run(core.clone())),
            maintenance: tokio::spawn(background::maintenance::run(core.clone())),
            heartbeat: (witness != PauseClock::Nobody).then(|| tokio::spawn(background::heartbeat::run(core.clone()))),
        };
        Self { core, tasks: Mutex::new(Some(tasks)) }
    }

    /// Lets go of every lease, as a restart does: the messages are available again, none of them counted as failed, and the
    /// tokens of their batches are good for nothing. For tests of consumers, which see nothing else of a restart.
    ///
    /// # Errors
    /// When the store failed, or the broker is closed.
    pub async fn release_leases(&self) -> Result<(), BrokerError> {
        let open = self.core.lock().take_open_leases();
        if open.is_empty() {
            return Ok(());
        }
        self.core.submit(Command::End(open)).outcome().await
    }

    /// Stops as a crash would, and returns when the store is let go of: work that was not answered may be lost.
    pub async fn abort(&self) {
        self.refuse_work();
        let mut running = self.tasks.lock().await;
        if let Some(tasks) = running.take() {
            tasks.stop_helpers();
            tasks.committer.abort();
            // They end by being aborted: that is no error.
            let _ = tokio::join!(tasks.timer, tasks.maintenance, tasks.committer);
        }
        self.release(false).await;
    }

    /// From now on calls are refused, and those that wait are answered empty.
    fn refuse_work(&self) {
        let mut state = self.core.lock();
        state.closed = true;
        state.wake_all();
    }

    async fn release(&self, in_order: bool) {
        if let Err(error) = self.core.ask_store(move |store| store.release(in_order)).await {
            tracing::warn!(%error, "the store could not be closed in order; it is safe, and opens as after a crash");
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.refuse_work();
        if let Some(tasks) = self.tasks.get_mut().take() {
            tasks.stop_helpers();
            tasks.committer.abort();
        }
    }
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker").field("store", &self.core.store).finish_non_exhaustive()
    }
}

impl crate::internal::Sealed for EmbeddedBroker {}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError> {
        self.core.create_queue(project, queue).await
    }

    async fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError> {
        self.core.queues(project)
    }

    async fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError> {
        self.core.queue(project, queue)
    }

    async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError> {
        self.core.delete_queue(project, queue).await
    }

    async fn create_groups(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        names: &[String],
    ) -> Result<Vec<GroupId>, BrokerError> {
        self.core.create_groups(project, queue, names).await
    }

    async fn groups(&self, project: &ProjectId, queue: &QueueId) -> Result<GroupList, BrokerError> {
        self.core.groups(project, queue)
    }

    async fn delete_group(&self, path: &GroupPath) -> Result<(), BrokerError> {
        self.core.delete_group(path).await
    }

    async fn append(&self, project: &ProjectId, queue: &QueueId, messages: Vec<NewMessage>) -> Result<(), BrokerError> {
        operations::append::append(&self.core, project, queue, messages).await
    }

    async fn lease(
        &self,
        path: &GroupPath,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError> {
        operations::consume::lease(&self.core, path, stream, &request).await
    }

    async fn ack(&self, path: &GroupPath, stream: Stream, acks: Vec<Ack>) -> Result<AckCounts, BrokerError> {
        operations::ack::ack(&self.core, path, stream, acks).await
    }

    async fn put_tags(&self, project: &ProjectId, queue: &QueueId, tags: Vec<QueueTag>) -> Result<(), BrokerError> {
        self.core.put_tags(project, queue, tags).await
    }

    async fn delete_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError> {
        self.core.delete_tags(project, queue, tags).await
    }

    async fn tags(&self, project: &ProjectId, queue: &QueueId) -> Result<Vec<QueueTag>, BrokerError> {
        self.core.tags(project, queue)
    }

    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError> {
        self.core.project_tags(project)
    }

    async fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError> {
        self.core.usage(project)
    }

    fn quotas(&self, project: &ProjectId) -> Quotas {
        self.core.config.quotas_of(project)
    }

    fn overview(&self) -> Vec<QueueOverview> {
        self.core.overview()
    }

    fn stats(&self) -> BrokerStats {
        let state = self.core.lock();
        BrokerStats {
            redeliveries: state.redeliveries,
            dead_letters: state.dead_letters,
            dead_letter_reasons: state.dead_letter_reasons,
            syncs: self.core.store.syncs(),
        }
    }

    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        self.core.health.troubles()
    }

    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError> {
        operations::peek::peek(&self.core, path, stream, from, max).await
    }

    fn damaged(&self) -> Vec<DamagedMessage> {
        self.core.damaged()
    }

    async fn skip_damaged(&self, which: &DamagedMessage) -> Result<(), BrokerError> {
        self.core.skip_damaged(which).await
    }

    async fn purge(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        self.core.purge(project, queue, group).await
    }

    async fn change_retention(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: RetentionChange,
    ) -> Result<(), BrokerError> {
        self.core.change_retention(project, queue, change).await
    }

    #[cfg(feature = "disk")]
    async fn back_up(&self, to: &Path) -> Result<crate::broker::BackedUp, BrokerError> {
        let to = to.to_owned();
        let made = self.core.ask_store(move |store| store.back_up(&to)).await;
        let made = made.map_err(|error| BrokerError::NoBackup(error.to_string()))?;
        Ok(crate::broker::BackedUp { commit: made.commit, files: made.files.len(), bytes: made.bytes() })
    }

    async fn close(&self) {
        self.refuse_work();
        // Whoever closes at the same time waits here until it is done.
        let mut running = self.tasks.lock().await;
        let Some(tasks) = running.take() else { return };
        tasks.stop_helpers();
        // Behind all that was accepted.
        let _ = self.core.submit(Command::Stop).outcome().await;
        let _ = tokio::join!(tasks.timer, tasks.maintenance, tasks.committer);
        self.release(true).await;
    }
}
