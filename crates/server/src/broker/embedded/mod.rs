//! The broker of the server: one process, the state in memory, every change committed to a store before it is answered.
//!
//! # How a change is made
//! A call reads the locked state, submits a `Command` to the committer and waits. The committer gathers waiting commands,
//! prepares records, has the store commit them together, applies them to the state and replies. No change is visible before it
//! is stored, and a commit that fails changes nothing.
//!
//! Leases are in memory only: after a restart they are gone, and their messages are available again. Only a store that several
//! servers share passes them on, when its owner stops in order.
//!
//! | module | contents |
//! |---|---|
//! | `operations` | one file for each operation: sending, consuming, acknowledging, administration |
//! | `command` | what a call asks of the committer |
//! | `commit` | the committer: prepare, store, apply |
//! | `state` | queues, streams, cursors, leases: plain values |
//! | `background` | the timer, retention, maintenance, the heartbeat |
//! | `reply` | the channel for the outcome of a command |
//! | `core` | what all of them share |
//! | `health` | whether the store works |
//! | `config` | the options |

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use async_trait::async_trait;
#[cfg(any(test, feature = "postgres"))]
use tokio::time::{Duration, timeout};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::Instant,
};

pub use self::config::{EmbeddedConfig, FailureCounting, StartPosition};
pub use crate::store::OpenError;
#[cfg(feature = "disk")]
use crate::store::disk::DiskStore;
#[cfg(feature = "postgres")]
use crate::store::postgres::PgStore;
#[cfg(feature = "postgres")]
pub use crate::store::postgres::{PostgresConfig, PostgresError};
use crate::{
    broker::{
        Ack, AckCounts, Appended, Broker, BrokerError, BrokerStats, DamagedMessage, FoundMessage, GroupList, GroupPath,
        LeaseRequest, LeasedMessage, MessageOrigin, NewMessage, NewSchedule, OverviewPage, Peeked, Purged, QueueChange,
        QueueOverview, Quotas, ScheduleOverview, ScheduleSource, StorageTrouble, Stream, Usage,
        embedded::{
            command::{Command, Request},
            core::Core,
            operations::resolve::Resolve,
            state::BrokerState,
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
mod reply;
mod state;
#[cfg(test)]
pub(crate) mod tests;

/// A DMS broker inside this process: queues, groups and leases in memory, over a store in memory, on disk or in PostgreSQL.
///
/// Dropping it stops it as a crash would: confirmed changes are kept (except in memory), others may be lost, and all leases end.
/// [`Broker::close`] stops it in order.
///
/// # Examples
/// ```
/// use dms_server::{
///     broker::{Broker, embedded::{EmbeddedBroker, EmbeddedConfig}},
///     clock::Clock,
///     queue::{NewQueue, ProjectId},
/// };
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let broker = EmbeddedBroker::in_memory(EmbeddedConfig::default(), Clock::system()).await;
///     let project = ProjectId::new("shop");
///     let queue = broker.create_queue(&project, NewQueue::new("orders")).await?;
///     broker.create_groups(&project, &queue.id, &["billing".to_owned()]).await?;
///     assert_eq!(broker.queue(&project, &queue.id).await?.group_count, 1);
///     broker.close().await;
///     Ok(())
/// }
/// ```
pub struct EmbeddedBroker {
    core: Arc<Core>,
    /// The tasks, until the broker is closed.
    tasks: Mutex<Option<Tasks>>,
}

#[derive(Debug)]
struct Tasks {
    committer: JoinHandle<()>,
    timer: JoinHandle<()>,
    maintenance: JoinHandle<()>,
    rates: JoinHandle<()>,
    /// `None` if pauses cannot be detected.
    heartbeat: Option<JoinHandle<()>>,
}

impl Tasks {
    /// Stops the tasks to which no caller waits for an answer.
    fn stop_helpers(&self) {
        self.timer.abort();
        self.maintenance.abort();
        self.rates.abort();
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.abort();
        }
    }
}

impl EmbeddedBroker {
    /// Creates a broker that keeps everything in memory, until the process ends.
    ///
    /// Messages stay for their retention, acknowledged or not, because groups that are created later still get them. The messages of
    /// 72 hours have to fit into memory, unless [`EmbeddedConfig::retention`] is shorter.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn in_memory(config: EmbeddedConfig, clock: Clock) -> Self {
        Self::start(Arc::new(MemoryStore::default()), Snapshot::default(), config, clock)
    }

    /// Opens a broker that keeps everything in a directory, which is created if it is missing. Answered changes are on disk. After a
    /// crash it opens without repair; leases are gone and their messages available.
    ///
    /// # Errors
    /// When the directory cannot be used or is in use, or a file in it is damaged, foreign or of a later version.
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

    /// Fails, because without the feature `disk` messages are kept in memory only.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "disk"))]
    pub async fn open(dir: &Path, _: EmbeddedConfig, _: Clock) -> Result<Self, OpenError> {
        Err(OpenError::NoDisk { dir: dir.to_owned() })
    }

    /// A broker that keeps everything in PostgreSQL, where other servers may own the messages: waits until this one does.
    ///
    /// The broker refuses all calls once another server has taken over; it is to be dropped then, and opened again.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or used, or a stored row is damaged.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[cfg(feature = "postgres")]
    pub async fn on_postgres(
        postgres: &PostgresConfig,
        config: EmbeddedConfig,
        clock: Clock,
    ) -> Result<Self, PostgresError> {
        let (store, snapshot) = PgStore::wait(postgres).await?;
        Ok(Self::resume(Arc::new(store), snapshot, config, clock).await)
    }

    /// A broker over a store that may have leases of the owner before.
    #[cfg(feature = "postgres")]
    pub(crate) async fn resume(
        store: Arc<dyn Store>,
        mut snapshot: Snapshot,
        config: EmbeddedConfig,
        clock: Clock,
    ) -> Self {
        let leases = std::mem::take(&mut snapshot.leases);
        let broker = Self::start(store, snapshot, config, clock);
        operations::hand_over::resume(&broker.core, leases).await;
        broker
    }

    /// A broker over an opened store.
    pub(crate) fn start(store: Arc<dyn Store>, snapshot: Snapshot, config: EmbeddedConfig, clock: Clock) -> Self {
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
        let now_ms = clock.now_ms();
        let mut state = BrokerState::restore(snapshot, config, now_ms);
        state.bound_entry_times(now_ms);
        state.schedules.log_strange(now_ms);
        state.pauses = PauseDetector::new(witness);
        let core = Arc::new(Core::new(state, store, clock, requests));
        let tasks = Tasks {
            committer: tokio::spawn(commit::committer::run(core.clone(), waiting)),
            timer: tokio::spawn(background::timer::run(core.clone())),
            maintenance: tokio::spawn(background::maintenance::run(core.clone())),
            rates: tokio::spawn(background::rates::run(core.clone())),
            heartbeat: (witness != PauseClock::Nobody).then(|| tokio::spawn(background::heartbeat::run(core.clone()))),
        };
        Self { core, tasks: Mutex::new(Some(tasks)) }
    }

    /// Takes other settings while it runs, except for `fifo_blocks` and `dead_letter_retention`. Queues keep messages for as long as
    /// the new settings say; quotas do not touch what exists already.
    pub(crate) fn reconfigure(&self, config: EmbeddedConfig) {
        let mut state = self.core.lock();
        state.reconfigure(config);
        let is_stale = std::mem::take(&mut state.timer_is_stale);
        drop(state);
        if is_stale {
            self.core.timer.notify_one();
        }
    }

    /// Ends every lease as a restart does: the messages are available again, no failure is counted, and acknowledgements with their
    /// receipts are refused. For tests of consumers, for which this is all they see of a restart.
    ///
    /// # Errors
    /// When the store failed, or the broker is closed.
    pub async fn release_leases(&self) -> Result<(), BrokerError> {
        let open = self.core.lock().take_open_leases();
        if open.is_empty() {
            return Ok(());
        }
        self.core.submit(Command::EndLeases(open)).outcome().await
    }

    /// Stops as a crash would, and returns when the store is released. Changes that were not answered may be lost.
    pub async fn abort(&self) {
        self.refuse_work();
        let mut running = self.tasks.lock().await;
        if let Some(tasks) = running.take() {
            tasks.stop_helpers();
            tasks.committer.abort();
            // The tasks were aborted, so they end with an error that says only that.
            let _ = tokio::join!(tasks.timer, tasks.maintenance, tasks.rates, tasks.committer);
        }
        self.release(false).await;
    }

    /// Stops because the store belongs to another server. That refuses every change from now on, so each one that was submitted can
    /// be answered with whether it was made; only changes whose outcome takes longer than `limit` stay unknown.
    #[cfg(any(test, feature = "postgres"))]
    pub(crate) async fn abort_after(&self, limit: Duration) {
        self.refuse_work();
        let _ = timeout(limit, self.core.submit(Command::Stop).outcome()).await;
        self.abort().await;
    }

    /// Refuses new calls, and answers waiting ones with an empty batch.
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

impl crate::broker::sealed::Sealed for EmbeddedBroker {}

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

    async fn append(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        messages: Vec<NewMessage>,
    ) -> Result<Appended, BrokerError> {
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
        self.core.lock().config.quotas_of(project)
    }

    fn overview(&self) -> Vec<QueueOverview> {
        self.core.overview()
    }

    async fn project_overview(
        &self,
        project: &ProjectId,
        page: OverviewPage<'_>,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        self.core.project_overview(project, &page)
    }

    async fn oldest(&self) -> HashMap<GroupId, i64> {
        let queues = self.core.queue_ids(|_| true).unwrap_or_default();
        operations::oldest::oldest(&self.core, &queues).await
    }

    async fn oldest_in(&self, queues: &[QueueId]) -> Result<HashMap<GroupId, i64>, BrokerError> {
        Ok(operations::oldest::oldest(&self.core, queues).await)
    }

    fn stats(&self) -> BrokerStats {
        let state = self.core.lock();
        BrokerStats {
            redeliveries: state.redeliveries,
            dead_letters: state.dead_letters,
            dead_letter_reasons: state.dead_letter_reasons,
            schedules: state.schedules.stats(self.core.wall.now_ms()),
            syncs: self.core.store.syncs(),
        }
    }

    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        self.core.health.troubles()
    }

    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError> {
        operations::peek::peek(&self.core, path, stream, from, max).await
    }

    async fn find_message(
        &self,
        project: &ProjectId,
        queues: &[QueueId],
        id: MessageOrigin,
    ) -> Result<FoundMessage, BrokerError> {
        operations::find::find(&self.core, project, queues, id).await
    }

    async fn retry_dead_letter(&self, path: &GroupPath, sequence: u64, id: MessageOrigin) -> Result<(), BrokerError> {
        operations::resolve::resolve(&self.core, path, Stream::DeadLetters, sequence, Resolve::Retry(id)).await
    }

    async fn edit_dead_letter(
        &self,
        path: &GroupPath,
        sequence: u64,
        id: MessageOrigin,
        copy: NewMessage,
    ) -> Result<(), BrokerError> {
        operations::resolve::resolve(&self.core, path, Stream::DeadLetters, sequence, Resolve::Edit(id, copy)).await
    }

    async fn discard_message(&self, path: &GroupPath, stream: Stream, sequence: u64) -> Result<(), BrokerError> {
        operations::resolve::resolve(&self.core, path, stream, sequence, Resolve::Discard).await
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

    async fn change_queue(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: QueueChange,
    ) -> Result<Queue, BrokerError> {
        self.core.change_queue(project, queue, change).await
    }

    async fn set_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        schedule: NewSchedule,
        source: ScheduleSource,
    ) -> Result<ScheduleOverview, BrokerError> {
        self.core.set_schedule(project, queue, schedule, source).await
    }

    async fn remove_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        source: ScheduleSource,
    ) -> Result<(), BrokerError> {
        self.core.remove_schedule(project, queue, name, source).await
    }

    async fn pause_schedule(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        name: &str,
        is_paused: bool,
    ) -> Result<ScheduleOverview, BrokerError> {
        self.core.pause_schedule(project, queue, name, is_paused).await
    }

    async fn schedules(&self) -> Result<Vec<ScheduleOverview>, BrokerError> {
        self.core.schedules()
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
        // A second call of `close` waits here until the first one is done.
        let mut running = self.tasks.lock().await;
        let Some(tasks) = running.take() else { return };
        tasks.stop_helpers();
        // Queued behind every accepted command.
        let _ = self.core.submit(Command::Stop).outcome().await;
        let _ = tokio::join!(tasks.timer, tasks.maintenance, tasks.rates, tasks.committer);
        let leases = self.core.lock().leases_to_keep(Instant::now());
        if let Err(error) = self.core.ask_store(move |store| store.keep_leases(&leases)).await {
            tracing::warn!(%error, "open leases could not be handed over: their messages become available");
        }
        self.release(true).await;
    }
}
