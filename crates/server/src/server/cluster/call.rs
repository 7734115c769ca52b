//! [`Call`] and [`Reply`]: an operation on the queues of one shard as a value, so that it can be tried again and sent to its owner.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::shape::{
    FoundShape, GroupsShape, LeasedShape, NewQueueShape, OverviewShape, PeekedShape, QueueChangeShape, QueueShape,
    SentShape, StreamShape,
};
use crate::broker::{
    Ack, AckCounts, Appended, Broker, BrokerError, DamagedMessage, GroupPath, LeaseRequest, MessageOrigin, NewSchedule,
    OverviewPage, Purged, ScheduleOverview, ScheduleSource, Usage, embedded::EmbeddedBroker,
};
use dms_protocol::queue::{GroupId, ProjectId, ProjectTag, QueueId, QueueTag};

/// All tries of a call are over after this time.
const LONGEST_TRIES: Duration = Duration::from_secs(120);

/// An operation on the queues of one shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Call {
    CreateQueue {
        project: ProjectId,
        queue: NewQueueShape,
    },
    Queues {
        project: ProjectId,
    },
    Queue {
        project: ProjectId,
        queue: QueueId,
    },
    DeleteQueue {
        project: ProjectId,
        queue: QueueId,
    },
    CreateGroups {
        project: ProjectId,
        queue: QueueId,
        names: Vec<String>,
    },
    Groups {
        project: ProjectId,
        queue: QueueId,
    },
    DeleteGroup {
        path: GroupPath,
    },
    Append {
        project: ProjectId,
        queue: QueueId,
        messages: Vec<SentShape>,
    },
    Lease {
        path: GroupPath,
        stream: StreamShape,
        request: LeaseRequest,
    },
    Ack {
        path: GroupPath,
        stream: StreamShape,
        acks: Vec<Ack>,
    },
    PutTags {
        project: ProjectId,
        queue: QueueId,
        tags: Vec<QueueTag>,
    },
    DeleteTags {
        project: ProjectId,
        queue: QueueId,
        tags: Vec<(String, Option<String>)>,
    },
    Tags {
        project: ProjectId,
        queue: QueueId,
    },
    ProjectTags {
        project: ProjectId,
    },
    Usage {
        project: ProjectId,
    },
    Overview,
    ProjectOverview {
        project: ProjectId,
    },
    OldestIn {
        queues: Vec<QueueId>,
    },
    Peek {
        path: GroupPath,
        stream: StreamShape,
        from: u64,
        max: usize,
    },
    Find {
        project: ProjectId,
        queues: Vec<QueueId>,
        id: MessageOrigin,
    },
    RetryDeadLetter {
        path: GroupPath,
        sequence: u64,
        id: MessageOrigin,
    },
    EditDeadLetter {
        path: GroupPath,
        sequence: u64,
        id: MessageOrigin,
        copy: Box<SentShape>,
    },
    Discard {
        path: GroupPath,
        stream: StreamShape,
        sequence: u64,
    },
    SkipDamaged {
        which: DamagedMessage,
    },
    Purge {
        project: ProjectId,
        queue: QueueId,
        group: Option<GroupId>,
    },
    ChangeQueue {
        project: ProjectId,
        queue: QueueId,
        change: QueueChangeShape,
    },
    Schedules,
    SetSchedule {
        project: ProjectId,
        queue: QueueId,
        schedule: NewSchedule,
        source: ScheduleSource,
    },
    RemoveSchedule {
        project: ProjectId,
        queue: QueueId,
        name: String,
        source: ScheduleSource,
    },
    PauseSchedule {
        project: ProjectId,
        queue: QueueId,
        name: String,
        is_paused: bool,
    },
    /// Of a server rather than a shard.
    EndPolls {
        project: ProjectId,
        names: Vec<String>,
    },
}

/// The result of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Created(QueueId, String, Option<String>),
    Queues(Vec<QueueShape>),
    Queue(QueueShape),
    GroupIds(Vec<GroupId>),
    Groups(GroupsShape),
    Leased(Vec<LeasedShape>),
    Acked(AckCounts),
    Tags(Vec<QueueTag>),
    ProjectTags(Vec<ProjectTag>),
    Usage(Usage),
    Appended(Appended),
    Overview(Vec<OverviewShape>),
    Oldest(HashMap<GroupId, i64>),
    Peeked(Vec<PeekedShape>),
    Found(FoundShape),
    Purged(Purged),
    Schedules(Vec<ScheduleOverview>),
    Schedule(Box<ScheduleOverview>),
    Ended(usize),
}

impl Call {
    /// Whether it may be made twice: it changes nothing, leases messages that come back, or sends messages with deduplication keys.
    pub(super) fn is_repeatable(&self) -> bool {
        if let Self::Append { messages, .. } = self {
            let counts =
                |message: &SentShape| message.deduplication.as_ref().is_some_and(|key| key.window >= LONGEST_TRIES);
            return messages.iter().all(counts);
        }
        matches!(
            self,
            Self::Queues { .. }
                | Self::Queue { .. }
                | Self::Groups { .. }
                | Self::Lease { .. }
                | Self::Tags { .. }
                | Self::ProjectTags { .. }
                | Self::Usage { .. }
                | Self::Overview
                | Self::ProjectOverview { .. }
                | Self::OldestIn { .. }
                | Self::Peek { .. }
                | Self::Find { .. }
                | Self::Schedules
        )
    }

    /// The messages of the call, which are sent as they are.
    pub(super) fn payloads(&mut self) -> Vec<&mut Bytes> {
        match self {
            Self::Append { messages, .. } => messages.iter_mut().map(|message| &mut message.json).collect(),
            Self::EditDeadLetter { copy, .. } => vec![&mut copy.json],
            _ => Vec::new(),
        }
    }

    /// Makes the call at a broker of this process.
    ///
    /// # Errors
    /// The errors of the broker.
    pub(super) async fn make(self, broker: &EmbeddedBroker) -> Result<Reply, BrokerError> {
        Ok(match self {
            Self::CreateQueue { project, queue } => {
                let made = broker.create_queue(&project, queue.into()).await?;
                Reply::Created(made.id, made.name, made.kafka_topic)
            }
            Self::Queues { project } => {
                Reply::Queues(broker.queues(&project).await?.into_iter().map(QueueShape::from).collect())
            }
            Self::Queue { project, queue } => Reply::Queue(broker.queue(&project, &queue).await?.into()),
            Self::DeleteQueue { project, queue } => done(broker.delete_queue(&project, &queue).await?),
            Self::CreateGroups { project, queue, names } => {
                Reply::GroupIds(broker.create_groups(&project, &queue, &names).await?)
            }
            Self::Groups { project, queue } => Reply::Groups(broker.groups(&project, &queue).await?.into()),
            Self::DeleteGroup { path } => done(broker.delete_group(&path).await?),
            Self::Append { project, queue, messages } => {
                let messages = messages.into_iter().map(Into::into).collect();
                Reply::Appended(broker.append(&project, &queue, messages).await?)
            }
            Self::Lease { path, stream, request } => {
                let leased = broker.lease(&path, stream.into(), request).await?;
                Reply::Leased(leased.into_iter().map(LeasedShape::from).collect())
            }
            Self::Ack { path, stream, acks } => Reply::Acked(broker.ack(&path, stream.into(), acks).await?),
            Self::PutTags { project, queue, tags } => done(broker.put_tags(&project, &queue, tags).await?),
            Self::DeleteTags { project, queue, tags } => done(broker.delete_tags(&project, &queue, tags).await?),
            Self::Tags { project, queue } => Reply::Tags(broker.tags(&project, &queue).await?),
            Self::ProjectTags { project } => Reply::ProjectTags(broker.project_tags(&project).await?),
            Self::Usage { project } => Reply::Usage(broker.usage(&project).await?),
            Self::Overview => Reply::Overview(broker.overview().into_iter().map(OverviewShape::from).collect()),
            Self::ProjectOverview { project } => {
                let all = OverviewPage { after: None, max: usize::MAX, is_shown: &|_, _| true };
                let queues = broker.project_overview(&project, all).await?;
                Reply::Overview(queues.into_iter().map(OverviewShape::from).collect())
            }
            Self::OldestIn { queues } => Reply::Oldest(broker.oldest_in(&queues).await?),
            Self::Peek { path, stream, from, max } => {
                let peeked = broker.peek(&path, stream.into(), from, max).await?;
                Reply::Peeked(peeked.into_iter().map(PeekedShape::from).collect())
            }
            Self::Find { project, queues, id } => {
                Reply::Found(broker.find_message(&project, &queues, id).await?.into())
            }
            Self::RetryDeadLetter { path, sequence, id } => done(broker.retry_dead_letter(&path, sequence, id).await?),
            Self::EditDeadLetter { path, sequence, id, copy } => {
                done(broker.edit_dead_letter(&path, sequence, id, (*copy).into()).await?)
            }
            Self::Discard { path, stream, sequence } => {
                done(broker.discard_message(&path, stream.into(), sequence).await?)
            }
            Self::SkipDamaged { which } => done(broker.skip_damaged(&which).await?),
            Self::Purge { project, queue, group } => {
                Reply::Purged(broker.purge(&project, &queue, group.as_ref()).await?)
            }
            Self::Schedules => Reply::Schedules(broker.schedules().await?),
            Self::SetSchedule { project, queue, schedule, source } => {
                Reply::Schedule(Box::new(broker.set_schedule(&project, &queue, schedule, source).await?))
            }
            Self::RemoveSchedule { project, queue, name, source } => {
                done(broker.remove_schedule(&project, &queue, &name, source).await?)
            }
            Self::PauseSchedule { project, queue, name, is_paused } => {
                Reply::Schedule(Box::new(broker.pause_schedule(&project, &queue, &name, is_paused).await?))
            }
            Self::EndPolls { .. } => return Err(BrokerError::NotOffered("ending the polls of a shard".into())),
            Self::ChangeQueue { project, queue, change } => {
                Reply::Queue(broker.change_queue(&project, &queue, change.into()).await?.into())
            }
        })
    }
}

impl Reply {
    /// The messages of the reply, which are sent as they are.
    pub(super) fn payloads(&mut self) -> Vec<&mut Bytes> {
        match self {
            Self::Leased(messages) => messages.iter_mut().map(|message| &mut message.json).collect(),
            Self::Peeked(messages) => messages.iter_mut().map(|message| &mut message.json).collect(),
            Self::Found(found) => found.places.iter_mut().map(|place| &mut place.json).collect(),
            _ => Vec::new(),
        }
    }
}

fn done((): ()) -> Reply {
    Reply::Done
}
