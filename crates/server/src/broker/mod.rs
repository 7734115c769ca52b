//! The operations of a DMS server without HTTP: the [`Broker`] trait and the values that it takes and returns.
//!
//! | file | contents |
//! |---|---|
//! | `messages` | sending, consuming, acknowledging |
//! | `ack_status` | the status that a consumer reports for a message, reasons of dead letters |
//! | `overview` | queues, groups, quotas and counters as they are reported |
//! | `inspection` | single messages as operators see them, backups |
//! | `schedules`, `timetable` | messages that are sent again and again, and when |
//! | `storage` | failures of the store |
//! | `cluster` | servers that share the queues |
//! | `error` | [`BrokerError`] |
//! | [`embedded`] | the implementation: state in memory over a store |
//!
//! HTTP, authentication and request limits call this trait and know nothing about its implementation, so that an implementation on a
//! shared database can stand beside the embedded one.

use std::{collections::HashMap, fmt, path::Path};

use async_trait::async_trait;

use crate::net::tls::Tls;
use dms_protocol::queue::{CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag};
use dms_protocol::secret::Secret;

pub(crate) use self::error::AlreadyLogged;
use self::sealed::Sealed;
pub use self::{
    ack_status::{AckStatus, ReasonCounts},
    cluster::{ClusterCounters, ClusterMember, ClusterShard, ClusterStandby, ClusterStatus, KeptJob},
    error::BrokerError,
    inspection::{
        BackedUp, DamagedIn, DamagedMessage, FoundIn, FoundMessage, FoundPlace, GroupStanding, PeekState, Peeked,
        Purged, Standing,
    },
    messages::{
        Ack, AckCounts, Appended, Deduplication, GroupPath, LeaseRequest, LeasedMessage, NewMessage, ReceiptText,
    },
    overview::{BrokerStats, GroupList, GroupOverview, OverviewPage, QueueOverview, Quotas, ScheduleStats, Usage},
    schedules::{NewSchedule, ScheduleOverview, ScheduledMessage},
    storage::{StoragePart, StorageTrouble},
    timetable::{ScheduleError, Timetable},
};
pub use crate::{
    histogram::Histogram,
    store::{
        Attempt, AttemptEnd, FailureCause, KeyHash, LastTick, MessageOrigin, MissedTicks, QueueChange, RetentionChange,
        RetentionPolicy, ScheduleSource,
    },
};
pub use dms_protocol::queue::Stream;

pub(crate) mod ack_status;
mod cluster;
pub mod embedded;
mod error;
mod inspection;
mod messages;
mod overview;
pub(crate) mod schedules;
pub(crate) mod sealed;
mod storage;
pub(crate) mod timetable;

/// The operations of a DMS server.
///
/// Every method returns when its effect is as durable as the implementation promises. The trait is sealed: only this package implements
/// it, because it grows with the server. Names and sizes are not checked again; see [`dms_protocol::limits`]. Numbers in parentheses
/// are sections of the API reference.
///
/// # Errors
/// Every method may return [`BrokerError::Closed`], [`BrokerError::Store`] if the store failed, and [`BrokerError::Unavailable`] or
/// [`BrokerError::Standby`] if another server may own the queue. Methods of a queue return [`BrokerError::QueueNotFound`] and
/// [`BrokerError::BeingCreated`], methods of a group also [`BrokerError::GroupNotFound`]. After an error nothing has changed, except
/// as [`BrokerError::Store`] says, and after [`BrokerError::Unsure`].
///
/// # Cancel safety
/// A dropped call has taken effect as a whole or not at all. A dropped `lease` hands out nothing.
#[async_trait]
pub trait Broker: Sealed + fmt::Debug + Send + Sync + 'static {
    /// Creates a queue (5.1.1). Only its description, `max_consume_count` and retention can be changed later.
    ///
    /// # Errors
    /// [`BrokerError::QueueExists`] and [`BrokerError::QueueQuota`].
    async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError>;
    /// All queues of a project, newest first (5.1.2); the dead-letter fields are filled in.
    async fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError>;
    /// One queue (5.1.3); the dead-letter fields are filled in.
    async fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError>;
    /// Deletes a queue with its messages, groups, dead letters and tags (5.1.4). Waiting consume calls end with an error.
    async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError>;

    /// Creates groups, all or none, and returns their ids in the order of `names` (5.2.1).
    ///
    /// # Errors
    /// [`BrokerError::GroupExists`] and [`BrokerError::GroupQuota`].
    async fn create_groups(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        names: &[String],
    ) -> Result<Vec<GroupId>, BrokerError>;
    /// The groups of a queue (5.2.2).
    async fn groups(&self, project: &ProjectId, queue: &QueueId) -> Result<GroupList, BrokerError>;
    /// Deletes a group with its dead letters (5.2.3).
    async fn delete_group(&self, path: &GroupPath) -> Result<(), BrokerError>;

    /// Stores messages, all or none (5.3.1). They keep their order.
    ///
    /// # Errors
    /// [`BrokerError::KafkaDelay`] and [`BrokerError::KafkaLabels`]: Kafka queues have neither delays nor labels.
    async fn append(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        messages: Vec<NewMessage>,
    ) -> Result<Appended, BrokerError>;
    /// Leases the next messages and waits for a first one (5.3.2, 5.3.4). Returns an empty batch if none arrived in time. The first
    /// call of a group fixes its label filter.
    ///
    /// # Errors
    /// [`BrokerError::FilterChanged`], [`BrokerError::KafkaLabels`], [`BrokerError::TooManyPolls`], [`BrokerError::TooMuchLeased`], and
    /// [`BrokerError::NoDeadLetters`] for [`Stream::DeadLetters`].
    async fn lease(
        &self,
        path: &GroupPath,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError>;
    /// Acknowledges messages (5.3.3, 5.3.5). Each batch is settled in its own order, up to the first message that is neither
    /// successful nor rejected. All later messages of the batch are available again.
    ///
    /// # Errors
    /// [`BrokerError::UnknownReceipt`], [`BrokerError::ForeignReceipt`] and [`BrokerError::NotRejectable`]. One bad line refuses the call.
    async fn ack(&self, path: &GroupPath, stream: Stream, acks: Vec<Ack>) -> Result<AckCounts, BrokerError>;

    /// Sets tags of a queue; existing keys are overwritten (5.4.1).
    ///
    /// # Errors
    /// [`BrokerError::TagQuota`].
    async fn put_tags(&self, project: &ProjectId, queue: &QueueId, tags: Vec<QueueTag>) -> Result<(), BrokerError>;
    /// Deletes tags by key, or by key and value. Missing tags are ignored (5.4.1).
    async fn delete_tags(
        &self,
        project: &ProjectId,
        queue: &QueueId,
        tags: Vec<(String, Option<String>)>,
    ) -> Result<(), BrokerError>;
    /// The tags of a queue (5.4.2).
    async fn tags(&self, project: &ProjectId, queue: &QueueId) -> Result<Vec<QueueTag>, BrokerError>;
    /// All tags of a project (5.4.3).
    async fn project_tags(&self, project: &ProjectId) -> Result<Vec<ProjectTag>, BrokerError>;

    /// How much of its quotas a project uses (5.5.1).
    async fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError>;
    /// The limits of a project.
    fn quotas(&self, project: &ProjectId) -> Quotas;

    /// All queues of all projects with their groups, oldest first. Reads counters only, never messages.
    fn overview(&self) -> Vec<QueueOverview>;

    /// A page of the queues of a project with their groups, oldest first. Reads counters only, never messages.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`] if the queue that the page follows was deleted.
    async fn project_overview(
        &self,
        project: &ProjectId,
        page: OverviewPage<'_>,
    ) -> Result<Vec<QueueOverview>, BrokerError> {
        page.of(self.overview(), project)
    }

    /// When the first message that is leased or available of each group entered its queue, in Unix milliseconds. Groups without
    /// such a message are left out.
    async fn oldest(&self) -> HashMap<GroupId, i64>;

    /// The same for the groups of these queues.
    async fn oldest_in(&self, _queues: &[QueueId]) -> Result<HashMap<GroupId, i64>, BrokerError> {
        Ok(self.oldest().await)
    }

    /// [`Broker::overview`] of all servers that serve the queues together; by default there is one.
    async fn overview_of_all(&self) -> Result<Vec<QueueOverview>, BrokerError> {
        Ok(self.overview())
    }

    /// Checks whether requests would be served.
    ///
    /// # Errors
    /// The error that requests would get.
    async fn ready(&self) -> Result<(), BrokerError> {
        self.usage(&ProjectId::new("readiness")).await.map(drop)
    }

    /// The counters since the broker was opened.
    fn stats(&self) -> BrokerStats;

    /// The parts of the store that fail now; empty when all is well.
    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        Vec::new()
    }

    /// Returns at most `max` messages of a group from the sequence number `from` on, without leasing them.
    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError>;

    /// Finds a message and its copies by its id, in these queues of a project. The search of a queue is bounded, so copies behind
    /// many other messages may be missing; [`FoundMessage::complete`] says so.
    async fn find_message(
        &self,
        _project: &ProjectId,
        _queues: &[QueueId],
        _id: MessageOrigin,
    ) -> Result<FoundMessage, BrokerError> {
        Err(BrokerError::NotOffered("finding messages by their ids".into()))
    }

    /// Delivers a dead letter to its group again, as a new message with this id. Other groups do not get it.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] if it is leased, settled or damaged.
    async fn retry_dead_letter(
        &self,
        _path: &GroupPath,
        _sequence: u64,
        _id: MessageOrigin,
    ) -> Result<(), BrokerError> {
        Err(BrokerError::NotOffered("retrying dead letters".into()))
    }

    /// Delivers an edited copy of a dead letter to its group, as [`Broker::retry_dead_letter`] does. The original is kept beside it: it
    /// stays a dead letter, at a new place, with the reason `edited`. Both have this id. The delay, the labels and the deduplication
    /// key of `copy` are not used.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] if it is leased, settled or damaged.
    async fn edit_dead_letter(
        &self,
        _path: &GroupPath,
        _sequence: u64,
        _id: MessageOrigin,
        _copy: NewMessage,
    ) -> Result<(), BrokerError> {
        Err(BrokerError::NotAvailable("this broker does not edit dead letters".into()))
    }

    /// Settles a message or a dead letter of a group, as if it were acknowledged with success.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] if it is leased, settled or damaged.
    async fn discard_message(&self, _path: &GroupPath, _stream: Stream, _sequence: u64) -> Result<(), BrokerError> {
        Err(BrokerError::NotOffered("discarding messages".into()))
    }

    /// The damaged messages that were set aside.
    fn damaged(&self) -> Vec<DamagedMessage> {
        Vec::new()
    }

    /// Settles a damaged message as if it were acknowledged. Its project, queue, group, stream and sequence number identify it.
    async fn skip_damaged(&self, _which: &DamagedMessage) -> Result<(), BrokerError> {
        Err(BrokerError::NotDamaged)
    }

    /// Deletes all messages of a queue, including delayed ones. With a group, settles the backlog of that group only. Messages
    /// that are leased meanwhile are settled whatever their acknowledgement says, and do not block a FIFO group any more. Dead
    /// letters stay.
    async fn purge(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        Err(BrokerError::NotOffered("purging".into()))
    }

    /// Changes the properties of a queue, all of them or none, and returns it as it is then. Changes of different properties at the
    /// same time all take effect. Messages keep the number of their failures.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] when it is a Kafka queue, which has no dead letters, or a group still has dead letters and they
    /// were switched off. [`BrokerError::Configured`] if the configuration of the server has a setting of the retention.
    async fn change_queue(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _change: QueueChange,
    ) -> Result<Queue, BrokerError> {
        Err(BrokerError::NotOffered("changing queues".into()))
    }

    /// Adds a schedule to a queue. From the configuration, it replaces a schedule of the queue with the same name, which stays paused
    /// if it was, and whose ticks go on from where they are unless its times change. By command, a schedule that exists is refused,
    /// unless it is the same.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] with the reason when the schedule is wrong, the name is taken, or the queue has too many, and
    /// [`BrokerError::KafkaLabels`].
    async fn set_schedule(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _schedule: NewSchedule,
        _source: ScheduleSource,
    ) -> Result<ScheduleOverview, BrokerError> {
        Err(BrokerError::NotOffered("schedules".into()))
    }

    /// Removes the schedule of a queue with this name.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] when there is none, or it is of the configuration and is to be removed by command.
    async fn remove_schedule(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _name: &str,
        _source: ScheduleSource,
    ) -> Result<(), BrokerError> {
        Err(BrokerError::NotOffered("schedules".into()))
    }

    /// Pauses the schedule of a queue with this name, or resumes it. The ticks of a pause are not missed: a schedule goes on from
    /// the moment at which it is resumed.
    ///
    /// # Errors
    /// [`BrokerError::NotAvailable`] when there is none.
    async fn pause_schedule(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _name: &str,
        _is_paused: bool,
    ) -> Result<ScheduleOverview, BrokerError> {
        Err(BrokerError::NotOffered("schedules".into()))
    }

    /// The schedules of all projects, by project and name. Reads memory only; a server of a cluster asks the others.
    async fn schedules(&self) -> Result<Vec<ScheduleOverview>, BrokerError> {
        Ok(Vec::new())
    }

    /// Copies everything stored before this call into a new directory. The broker keeps working meanwhile.
    ///
    /// # Errors
    /// [`BrokerError::NoBackup`] if the broker has no data directory, or the copy cannot be written.
    async fn back_up(&self, _to: &Path) -> Result<BackedUp, BrokerError> {
        Err(BrokerError::NoBackup("this broker does not keep its messages in a directory".to_owned()))
    }

    /// The secret of the servers that share the queues.
    #[doc(hidden)]
    fn shared_secret(&self) -> Option<Secret> {
        None
    }

    /// The certificate that this server shows to those.
    #[doc(hidden)]
    fn peer_certificate(&self) -> Option<Tls> {
        None
    }

    /// Ends the consume calls with these names that wait at other servers of the cluster. Returns how many were waiting, as far as
    /// these servers answer.
    #[doc(hidden)]
    async fn end_polls_elsewhere(&self, _project: &ProjectId, _names: &[String]) -> usize {
        0
    }

    /// Keeps a job of this server, as it is now, where another one of the cluster finds it when this one is gone. Returns false if
    /// another one has found it already.
    #[doc(hidden)]
    async fn keep_job(&self, _id: &str, _facts: &str) -> Result<bool, BrokerError> {
        Err(BrokerError::NotOffered("jobs that other servers continue".into()))
    }

    /// Forgets a job of this server, which has ended.
    #[doc(hidden)]
    async fn forget_job(&self, _id: &str) -> Result<(), BrokerError> {
        Err(BrokerError::NotOffered("jobs that other servers continue".into()))
    }

    /// The jobs of all servers, after this server has taken over the jobs of servers that are gone.
    #[doc(hidden)]
    async fn kept_jobs(&self) -> Result<Vec<KeptJob>, BrokerError> {
        Err(BrokerError::NotOffered("jobs that other servers continue".into()))
    }

    /// The counters of a server that shares its queues with others. `None` if it has them alone.
    fn cluster_counters(&self) -> Option<ClusterCounters> {
        None
    }

    /// The servers that share the queues with this one.
    async fn cluster(&self) -> Result<ClusterStatus, BrokerError> {
        Err(BrokerError::NotOffered("a cluster: server.postgres is not set".into()))
    }

    /// Hands a shard over to a server of the cluster; by default to the server with the fewest shards. Returns the id of that server.
    async fn move_shard(&self, _shard: u32, _to: Option<&str>) -> Result<String, BrokerError> {
        Err(BrokerError::NotOffered("a cluster: server.postgres is not set".into()))
    }

    /// Makes a server of the cluster give its shards away, or take shards again; by default this server. Returns its id.
    async fn drain(&self, _server: Option<&str>, _is_draining: bool) -> Result<String, BrokerError> {
        Err(BrokerError::NotOffered("a cluster: server.postgres is not set".into()))
    }

    /// Refuses new calls, answers every waiting `lease`, and returns when all accepted changes are durable.
    async fn close(&self);
}
