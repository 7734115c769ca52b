//! [`FailoverBroker`]: one of several servers on the same PostgreSQL. It serves while it owns the messages, and otherwise waits to take
//! over.
//!
//! `supervisor` waits for ownership, opens an [`EmbeddedBroker`] over the store, and ends it when ownership is lost. A call reaches
//! the broker of the moment, or is refused with the name of the server that owns the messages.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::supervisor::Supervisor;
use crate::{
    auth::project::Project,
    broker::{
        Ack, AckCounts, Appended, BackedUp, Broker, BrokerError, BrokerStats, DamagedMessage, FoundMessage, GroupList,
        GroupPath, LeaseRequest, LeasedMessage, MessageOrigin, NewMessage, OverviewPage, Peeked, Purged, QueueOverview,
        Quotas, RetentionChange, StorageTrouble, Stream, Usage,
        embedded::{EmbeddedBroker, EmbeddedConfig},
    },
    clock::Clock,
    store::postgres::{PostgresConfig, PostgresError, member::Member, runtime::Runtime},
};
use dms_protocol::queue::{CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag};

mod supervisor;

/// A broker over PostgreSQL that several servers share; one of them serves at a time.
///
/// Dropping it stops it as a crash would: others take over within 1.6 times `takeover_after`. [`Broker::close`] is the orderly way,
/// after which they take over at once.
#[derive(Debug)]
pub(crate) struct FailoverBroker {
    seat: Arc<Seat>,
    config: EmbeddedConfig,
    stop: CancellationToken,
    /// Until it is closed.
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// What this server does at the moment.
#[derive(Debug)]
struct Seat(RwLock<Role>);

#[derive(Clone, Debug)]
enum Role {
    /// It serves.
    Active(Arc<EmbeddedBroker>),
    /// It waits; the text says for what.
    Standby(Arc<str>),
}

impl Seat {
    fn role(&self) -> Role {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, role: Role) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = role;
    }
}

impl FailoverBroker {
    /// Joins the servers on a PostgreSQL, and takes the messages over as soon as nobody else has them. The missing queues of
    /// `projects` are created each time this server takes over.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) async fn join(
        postgres: PostgresConfig,
        config: EmbeddedConfig,
        projects: Vec<Project>,
        clock: Clock,
    ) -> Result<Self, PostgresError> {
        postgres.check()?;
        let runtime = Arc::new(Runtime::start()?);
        let member = Member::join(&postgres, runtime.clone()).await?;
        let seat = Arc::new(Seat(RwLock::new(Role::Standby("it has just started".into()))));
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            seat: seat.clone(),
            postgres,
            config: config.clone(),
            projects,
            clock,
            runtime,
            stop: stop.clone(),
        };
        let supervisor = Mutex::new(Some(tokio::spawn(supervisor.run(member))));
        Ok(Self { seat, config, stop, supervisor })
    }

    /// The broker that serves, if it is this server's.
    fn active(&self) -> Result<Arc<EmbeddedBroker>, BrokerError> {
        match self.seat.role() {
            Role::Active(broker) => Ok(broker),
            Role::Standby(_) if self.stop.is_cancelled() => Err(BrokerError::Closed),
            Role::Standby(why) => Err(BrokerError::Standby(why.to_string())),
        }
    }
}

impl Drop for FailoverBroker {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.get_mut().take() {
            supervisor.abort();
        }
    }
}

impl crate::broker::sealed::Sealed for FailoverBroker {}

#[async_trait]
impl Broker for FailoverBroker {
    async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError> {
        self.active()?.create_queue(project, queue).await
    }

    async fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError> {
        self.active()?.queues(project).await
    }

    async fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError> {
        self.active()?.queue(project, queue).await
    }

    async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError> {
        self.active()?.delete_queue(project, queue).await
    }

    async fn create_groups(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        names: &[String],
    ) -> Result<Vec<GroupId>, BrokerError> {
        self.active()?.create_groups(project, queue, names).await
    }

    async fn groups(&self, project: &ProjectId, queue: &QueueId) -> Result<GroupList, BrokerError> {
        self.active()?.groups(project, queue).await
    }

    async fn delete_group(&self, path: &GroupPath) -> Result<(), BrokerError> {
        self.active()?.delete_group(path).await
    }

    async fn append(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        messages: Vec<NewMessage>,
    ) -> Result<Appended, BrokerError> {
        self.active()?.append(project, queue, messages).await
    }

    async fn lease(
        &self,
        path: &GroupPath,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError> {
        self.active()?.lease(path, stream, request).await
    }

    async fn ack(&self, path: &GroupPath, stream: Stream, acks: Vec<Ack>) -> Result<AckCounts, BrokerError> {
        self.active()?.ack(path, stream, acks).await
    }

    async fn put_tags(&self, project: &ProjectId, queue: &QueueId, tags: Vec<QueueTag>) -> Result<(), BrokerError> {
        self.active()?.put_tags(project, queue, tags).await
    }

    async fn tags(&self, project: &ProjectId, queue: &QueueId) -> Result<Vec<QueueTag>, BrokerError> {
        self.active()?.tags(project, queue).await
    }

    async fn delete_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError> {
        self.active()?.delete_tags(project, queue, tags).await
    }

    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError> {
        self.active()?.project_tags(project).await
    }

    async fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError> {
        self.active()?.usage(project).await
    }

    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError> {
        self.active()?.peek(path, stream, from, max).await
    }

    async fn find_message(
        &self,
        project: &ProjectId,
        queues: &[QueueId],
        id: MessageOrigin,
    ) -> Result<FoundMessage, BrokerError> {
        self.active()?.find_message(project, queues, id).await
    }

    async fn retry_dead_letter(&self, path: &GroupPath, sequence: u64, id: MessageOrigin) -> Result<(), BrokerError> {
        self.active()?.retry_dead_letter(path, sequence, id).await
    }

    async fn discard_message(&self, path: &GroupPath, stream: Stream, sequence: u64) -> Result<(), BrokerError> {
        self.active()?.discard_message(path, stream, sequence).await
    }

    async fn skip_damaged(&self, which: &DamagedMessage) -> Result<(), BrokerError> {
        self.active()?.skip_damaged(which).await
    }

    async fn purge(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        self.active()?.purge(project, queue, group).await
    }

    async fn change_retention(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        change: RetentionChange,
    ) -> Result<(), BrokerError> {
        self.active()?.change_retention(project, queue, change).await
    }

    async fn back_up(&self, to: &Path) -> Result<BackedUp, BrokerError> {
        self.active()?.back_up(to).await
    }

    fn quotas(&self, project: &ProjectId) -> Quotas {
        self.config.quotas_of(project)
    }

    fn overview(&self) -> Vec<QueueOverview> {
        self.active().map(|broker| broker.overview()).unwrap_or_default()
    }

    async fn project_overview(
        &self,
        project: &ProjectId,
        page: OverviewPage<'_>,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        self.active()?.project_overview(project, page).await
    }

    async fn oldest_in(&self, queues: &[QueueId]) -> Result<HashMap<GroupId, i64>, BrokerError> {
        self.active()?.oldest_in(queues).await
    }

    async fn oldest(&self) -> HashMap<GroupId, i64> {
        match self.active() {
            Ok(broker) => broker.oldest().await,
            Err(_) => HashMap::new(),
        }
    }

    fn stats(&self) -> BrokerStats {
        self.active().map(|broker| broker.stats()).unwrap_or_default()
    }

    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        self.active().map(|broker| broker.storage_troubles()).unwrap_or_default()
    }

    fn damaged(&self) -> Vec<DamagedMessage> {
        self.active().map(|broker| broker.damaged()).unwrap_or_default()
    }

    async fn close(&self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.lock().await.take() {
            // It ends by itself now; a panic of it was reported when it happened.
            let _ = supervisor.await;
        }
    }
}
