//! What a DMS server does, without HTTP: the [`Broker`] trait at the level of operations, and the values it takes and gives.
//!
//! HTTP, authentication and request limits stand in front of this trait and know nothing of what is behind it, so that an
//! implementation on a shared database can stand beside the embedded one. [`embedded`] is the one that ships.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use dms_protocol::{
    message::DeadLetterInfo,
    queue::{
        ConsumerGroup, CreatedQueue, GroupId, NewQueue, ProjectId, ProjectTag, Queue, QueueId, QueueTag, TagFilter,
    },
};

pub use self::retention::{Purged, RetentionPolicy};
pub use self::verdict::{FailureCause, ReasonCounts, Verdict};
pub use crate::histogram::Histogram;
pub use dms_protocol::queue::Stream;

pub mod embedded;
mod retention;
pub(crate) mod verdict;

/// Where a consume or an acknowledgement goes: a group of a queue of a project.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupPath {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The group.
    pub group: GroupId,
}

/// A message that passed the request's checks, ready to be stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// The `message` object of a consume answer as JSON text: `{"body":…,"attributes":{…}}` plus `,"tags":[…]` where
    /// there are labels. It is spliced into answers as it is.
    pub json: Bytes,
    /// Size of the body's JSON text in bytes: what counts towards 524 288.
    pub body_bytes: usize,
    /// The labels.
    pub tags: Vec<String>,
    /// How long it stays invisible.
    pub delay: Duration,
}

/// A consume call (API reference 5.3.2, 5.3.4).
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRequest {
    /// At most this many messages: 1-10.
    pub max_messages: usize,
    /// At most this many bytes of bodies; the first message is given whatever its size.
    pub max_bytes: usize,
    /// How long to wait for a first message.
    pub wait: Duration,
    /// How long the batch may stay unacknowledged.
    pub ack_wait: Duration,
    /// The label rule; always empty for dead letters.
    pub filter: TagFilter,
}

/// One message of a leased batch.
#[derive(Clone, Debug, PartialEq)]
pub struct LeasedMessage {
    /// As [`NewMessage::json`].
    pub json: Bytes,
    /// The labels, for the copy beside `message`.
    pub tags: Arc<[String]>,
    /// The token that acknowledges this message: opaque, unforgeable, good until the lease ends.
    pub receipt: String,
    /// Its place in the stream: the same each time it is leased.
    pub sequence: u64,
    /// Failed consumptions before this one.
    pub failures: u32,
    /// When it entered its stream, in milliseconds since the Unix epoch: with the place it tells a message from any other,
    /// also from one at the same place of a stream that was restored from a backup.
    pub entered_ms: i64,
    /// Why and when it became a dead letter; `None` for one of before there were reasons, and for other messages.
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
}

/// One line of an acknowledgement (API reference 5.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The token from the consume answer.
    pub receipt: String,
    /// What is said of the message.
    pub verdict: Verdict,
}

/// What an acknowledgement settled; the sum is the size of the batches it named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckCounts {
    /// How many at the beginning of the batch are settled: done or rejected.
    pub success: usize,
    /// How many at its end failed or were released.
    pub fail: usize,
}

/// A queue's groups with their counters (API reference 5.2.2).
#[derive(Clone, Debug, PartialEq)]
pub struct GroupList {
    /// The queue's name.
    pub queue_name: String,
    /// Whether the queue has dead letters.
    pub dead_letters: bool,
    /// The groups in the order of their creation; the dead-letter counters are always filled in.
    pub groups: Vec<ConsumerGroup>,
}

/// How much of the quotas a project uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// NORMAL and FIFO queues.
    pub queues: usize,
    /// Kafka queues.
    pub kafka_queues: usize,
}

/// The limits a broker holds a project to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Queues of one project, both kinds counted apart; 30.
    pub queues: usize,
    /// Groups of one queue; 3.
    pub groups_per_queue: usize,
    /// Resource tags of one queue; 10.
    pub tags_per_queue: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { queues: 30, groups_per_queue: 3, tags_per_queue: dms_protocol::limits::MAX_QUEUE_TAGS }
    }
}

/// A queue and its groups, for metrics and for looking in.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueOverview {
    /// The project it belongs to.
    pub project: ProjectId,
    /// The queue; the dead-letter fields are filled in.
    pub queue: Queue,
    /// How long it keeps messages.
    pub retention: Duration,
    /// Whether messages go as soon as every group has settled them.
    pub delete_when_settled: bool,
    /// What of that was set while the server ran.
    pub retention_set: RetentionPolicy,
    /// Messages that are not due yet.
    pub delayed: u64,
    /// Those of them that were due, and are damaged.
    pub damaged_delayed: u64,
    /// Its groups in the order of their creation.
    pub groups: Vec<GroupOverview>,
}

/// A group of a [`QueueOverview`].
#[derive(Clone, Debug, PartialEq)]
pub struct GroupOverview {
    /// The group with its counters.
    pub group: ConsumerGroup,
    /// Messages that are leased.
    pub in_flight: u64,
    /// Consume calls that wait.
    pub polls: u64,
    /// Messages that retention deleted before the group had consumed them, since the broker was opened.
    pub expired_unread: u64,
    /// Dead letters that retention deleted before the group had consumed them, since then.
    pub expired_dead_letters: u64,
    /// Messages that are set aside because they are damaged.
    pub damaged: u64,
    /// Dead letters that are set aside because they are damaged.
    pub damaged_dead_letters: u64,
}

/// What a broker has counted since it was opened, for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BrokerStats {
    /// Messages and dead letters that were handed out again: after a failure, a lapsed lease or a restart.
    pub redeliveries: u64,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// The same by reason.
    pub dead_letter_reasons: ReasonCounts,
    /// How long the disk took to make each commit durable; none without a disk.
    pub syncs: Histogram,
}

/// What the server shows of a message without leasing it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peeked {
    /// Its place in the stream; of a delayed message, which has none yet, its place among those, counted from 2^40.
    pub sequence: u64,
    /// As [`NewMessage::json`].
    pub json: Bytes,
    /// Where it stands for the group.
    pub state: PeekState,
    /// Failed consumptions so far.
    pub failures: u32,
    /// When it was sent (or became due, or became a dead letter), in milliseconds since the Unix epoch.
    pub entered_ms: i64,
    /// As [`LeasedMessage::dead_letter`].
    pub dead_letter: Option<Arc<DeadLetterInfo>>,
}

/// A message that is not on the disk as it was written. It is set aside: those behind it are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedMessage {
    /// The project.
    pub project: ProjectId,
    /// The queue.
    pub queue: QueueId,
    /// The queue's name.
    pub queue_name: String,
    /// The group that came upon it; none where it was delayed.
    pub group: Option<GroupId>,
    /// That group's name.
    pub group_name: Option<String>,
    /// What kind of message it is.
    pub of: DamagedIn,
    /// Its place there.
    pub sequence: u64,
    /// The file that it is in.
    pub file: String,
    /// Where it begins in the file, as far as that is known.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// A copy of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The number of the last commit in it.
    pub commit: u64,
    /// How many files it has.
    pub files: usize,
    /// How large they are together.
    pub bytes: u64,
}

/// Among what a damaged message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamagedIn {
    /// The messages of a queue.
    Messages,
    /// The dead letters of a group.
    DeadLetters,
    /// Messages that were not due.
    Delayed,
}

impl DamagedIn {
    /// `messages`, `deadletters` or `delayed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::DeadLetters => "deadletters",
            Self::Delayed => "delayed",
        }
    }
}

/// Where a message stands for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeekState {
    /// It can be consumed.
    Available,
    /// It is in a batch whose lease lasts this much longer.
    Leased(Duration),
    /// It becomes visible after this time.
    Delayed(Duration),
}

/// A part of the store that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoragePart {
    /// Changes cannot be made durable: calls are refused.
    Commits,
    /// The index does not take in what the log has: memory and the time of the next start grow.
    Index,
    /// Messages cannot be read: those of them are set aside, or calls that want them are refused.
    Reads,
}

impl StoragePart {
    /// `commits`, `index` or `reads`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commits => "commits",
            Self::Index => "index",
            Self::Reads => "reads",
        }
    }
}

/// What is wrong with the store now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageTrouble {
    /// What fails.
    pub part: StoragePart,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Why, as of the last failure; at most 500 bytes. May name files of the data directory.
    pub reason: String,
    /// What can be done about it.
    pub remedy: &'static str,
    /// Whether it is that the disk is full.
    pub is_disk_full: bool,
    /// How many changes were refused for it, those included that the broker tries by itself.
    pub refused: u64,
}

/// The cause of a failure that the log has told of, and is not to tell of for each call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AlreadyLogged(pub(crate) Arc<dyn std::error::Error + Send + Sync>);

impl BrokerError {
    /// Whether the log has told of it.
    pub(crate) fn is_already_logged(&self) -> bool {
        matches!(self, Self::Store(cause) if cause.is::<AlreadyLogged>())
    }
}

/// Why a broker refused or could not do something. HTTP maps each kind to one documented code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// No queue of that id in the project.
    #[error("the queue does not exist")]
    QueueNotFound,
    /// No group of that id in the queue.
    #[error("the consumer group does not exist")]
    GroupNotFound,
    /// The data directory could not be copied.
    #[error("no copy was made: {0}")]
    NoBackup(String),
    /// This broker cannot do that.
    #[error("this server does not offer {0}")]
    NotOffered(&'static str),
    /// The configuration says it, and wins.
    #[error("the configuration of the server sets {0} of this queue: change it there")]
    Configured(&'static str),
    /// No message that was set aside is there.
    #[error("no damaged message is set aside there")]
    NotDamaged,
    /// The project has a queue of that name.
    #[error("the queue {0} exists already")]
    QueueExists(String),
    /// The queue has a group of that name.
    #[error("the consumer group {0} exists already")]
    GroupExists(String),
    /// The project has as many queues as it may.
    #[error("the project may have {0} queues")]
    QueueQuota(usize),
    /// The queue has as many groups as it may.
    #[error("a queue may have {0} consumer groups")]
    GroupQuota(usize),
    /// The queue has as many resource tags as it may.
    #[error("a queue may have {0} tags")]
    TagQuota(usize),
    /// The queue has no resource tag of that key.
    #[error("the queue has no tag {0}")]
    TagNotFound(String),
    /// The queue or group was created a moment ago.
    #[error("it is being created")]
    BeingCreated,
    /// The queue has no dead letters.
    #[error("the queue has no dead letters")]
    NoDeadLetters,
    /// A Kafka queue takes no delayed messages.
    #[error("kafka queue message could not have delayTime.")]
    KafkaDelay,
    /// A Kafka queue has no labels.
    #[error("a Kafka queue has no labels")]
    KafkaLabels,
    /// The group consumes by another label rule.
    #[error("the group consumes by another label rule: {0}")]
    FilterChanged(String),
    /// The token cannot be read, its lease is over, or it was acknowledged before: says which line's it is.
    #[error("{0}")]
    UnknownReceipt(String),
    /// The token belongs to another queue, group or stream: says which line's it is.
    #[error("{0}")]
    ForeignReceipt(String),
    /// A message can only be rejected where there are dead letters for it.
    #[error("{0}")]
    NotRejectable(&'static str),
    /// The group has as many long polls as it may.
    #[error("the group has {0} waiting consume calls")]
    TooManyPolls(usize),
    /// Consumers of the group, or all together, hold as much as they may of so many bytes without acknowledging it.
    #[error(
        "the group holds its share of the {0} bytes that messages may have which are not acknowledged; acknowledge some first"
    )]
    TooMuchLeased(usize),
    /// The store could not do it. What was to be changed is as it was, unless the process ends before the disk works again: what
    /// reached the disk may be found there by the next start.
    #[error("the store failed")]
    Store(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

/// The operations of a DMS server.
///
/// Every method answers when its effect is as durable as the implementation promises. All are cancel-safe in the sense
/// that a dropped call has either taken effect as a whole or not at all; a dropped `lease` hands nothing out.
#[async_trait]
pub trait Broker: fmt::Debug + Send + Sync + 'static {
    /// Creates a queue (5.1.1).
    async fn create_queue(&self, project: &ProjectId, queue: NewQueue) -> Result<CreatedQueue, BrokerError>;
    /// All queues of a project, newest first (5.1.2); the dead-letter fields are filled in.
    async fn queues(&self, project: &ProjectId) -> Result<Vec<Queue>, BrokerError>;
    /// One queue (5.1.3); the dead-letter fields are filled in.
    async fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<Queue, BrokerError>;
    /// Deletes a queue with all it holds (5.1.4).
    async fn delete_queue(&self, project: &ProjectId, queue: &QueueId) -> Result<(), BrokerError>;

    /// Creates groups, all or none, and gives their ids in the order of `names` (5.2.1).
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

    /// Stores messages, all or none (5.3.1).
    async fn append(&self, project: &ProjectId, queue: &QueueId, messages: Vec<NewMessage>) -> Result<(), BrokerError>;
    /// Leases the next messages, waiting for a first one (5.3.2, 5.3.4). Empty when none came in time.
    async fn lease(
        &self,
        path: &GroupPath,
        stream: Stream,
        request: LeaseRequest,
    ) -> Result<Vec<LeasedMessage>, BrokerError>;
    /// Judges acknowledgements, each batch by its own order up to the first message that is neither done nor rejected
    /// (5.3.3, 5.3.5).
    async fn ack(&self, path: &GroupPath, stream: Stream, acks: Vec<Ack>) -> Result<AckCounts, BrokerError>;

    /// Sets tags of a queue, equal keys overwritten (5.4.1).
    async fn put_tags(&self, project: &ProjectId, queue: &QueueId, tags: Vec<QueueTag>) -> Result<(), BrokerError>;
    /// Deletes tags: by key, or by key and value. Those that are not there are passed over (5.4.1).
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

    /// What a project uses of its quotas (5.5.1).
    async fn usage(&self, project: &ProjectId) -> Result<Usage, BrokerError>;
    /// The limits a project is held to.
    fn quotas(&self, project: &ProjectId) -> Quotas;

    /// All queues of all projects with their groups, oldest first. Looks at counters only, never at messages.
    fn overview(&self) -> Vec<QueueOverview>;

    /// What it has counted so far.
    fn stats(&self) -> BrokerStats;

    /// What is wrong with the store now; nothing when all is well.
    fn storage_troubles(&self) -> Vec<StorageTrouble> {
        Vec::new()
    }

    /// Shows messages of a group from `from` on without leasing any: at most `max`.
    async fn peek(&self, path: &GroupPath, stream: Stream, from: u64, max: usize) -> Result<Vec<Peeked>, BrokerError>;

    /// The damaged messages that are set aside.
    fn damaged(&self) -> Vec<DamagedMessage> {
        Vec::new()
    }

    /// Skips one of them for good, as if it were acknowledged: its project, queue, group, kind and place count.
    async fn skip_damaged(&self, _which: &DamagedMessage) -> Result<(), BrokerError> {
        Err(BrokerError::NotDamaged)
    }

    /// Deletes all messages of a queue, those that are not due among them; with a group, settles that group's backlog alone. Messages
    /// that are leased meanwhile are settled whatever their acknowledgement says; dead letters stay.
    async fn purge(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        Err(BrokerError::NotOffered("purging"))
    }

    /// Sets how long a queue keeps its messages; what the policy leaves open is as the configuration says.
    async fn set_retention(
        &self,
        _project: &ProjectId,
        _queue: &QueueId,
        _policy: RetentionPolicy,
    ) -> Result<(), BrokerError> {
        Err(BrokerError::NotOffered("a retention for each queue"))
    }

    /// Copies all that was stored before this call into a new directory, while everything goes on.
    async fn back_up(&self, _to: &Path) -> Result<BackedUp, BrokerError> {
        Err(BrokerError::NoBackup("this broker keeps nothing in a directory of its own".to_owned()))
    }

    /// Answers every waiting `lease` with what it has, refuses new work, and returns when all that was accepted is durable.
    async fn close(&self);
}
