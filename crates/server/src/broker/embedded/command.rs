//! The requests to the committer: a [`Command`] for each change, and the channel for its outcome.

use std::sync::Arc;

use crate::{
    broker::{
        Appended, NewMessage, QueueChange,
        embedded::{
            reply::Reply,
            state::{due_ticks::DueTicks, label_filter::LabelFilter, lease::LeaseEnd},
        },
    },
    store::{CursorId, MessageOrigin, QueueRow, ScheduleRow, ScheduleSource, Settlement, StoredMessage, StreamId},
};
use dms_protocol::queue::{GroupId, QueueId, QueueTag};

/// A change of the stored data. It was possible when it was submitted, and is checked again before it is committed.
#[derive(Debug)]
pub(crate) enum Command {
    /// Messages enter a queue, or its delay queue.
    Append(QueueId, Vec<NewMessage>),
    /// Leases end. Each of them is marked as ending.
    EndLeases(Vec<(CursorId, u64, LeaseEnd)>),
    /// A dead letter goes back to its group: a message for that group alone enters the queue, and the lease of the dead letter ends.
    /// If it was edited, its original is a dead letter again, at a new place.
    Retry {
        stream: StreamId,
        group: CursorId,
        message: Arc<StoredMessage>,
        origin: MessageOrigin,
        original: Option<Arc<StoredMessage>>,
        end: (CursorId, u64, LeaseEnd),
    },
    /// A cursor skipped many messages.
    Skip(CursorId, Settlement),
    /// Messages whose delay has ended move from the delay queue into the stream.
    EndDelays { delay_queue: StreamId, stream: StreamId, due: Vec<Arc<StoredMessage>> },
    /// A damaged message of a delay queue is given up: the end of its delay and its sequence number.
    DropDelayed(StreamId, i64, u64),
    /// Messages of a stream below `low` have expired.
    Expire { stream: StreamId, low: u64, oldest: Option<i64> },
    /// Messages that every cursor of a stream has settled are deleted.
    DropSettled(StreamId),
    /// Ticks of a schedule send their messages.
    Tick(Tick),
    /// A change of queues, groups, tags or label filters.
    Admin(AdminCommand),
    /// The last command: the committer stops.
    Stop,
}

/// Due ticks of a schedule. They are void if the schedule has changed since they were computed.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) queue: QueueId,
    pub(crate) name: String,
    /// How far the schedule had come when the ticks were computed.
    pub(crate) from_ms: i64,
    pub(crate) due: DueTicks,
    /// An estimate of the bytes of their messages.
    pub(crate) bytes: usize,
}

/// Changes that are committed alone, because later commands depend on their outcome.
#[derive(Debug)]
pub(crate) enum AdminCommand {
    /// The committer sets the row's number.
    CreateQueue(QueueRow),
    DeleteQueue(QueueId),
    CreateGroups(QueueId, Vec<(GroupId, String)>),
    DeleteGroup(QueueId, GroupId),
    PutTags(QueueId, Vec<QueueTag>),
    DeleteTags(QueueId, Vec<(String, Option<String>)>),
    FixRule(CursorId, LabelFilter),
    ChangeQueue(QueueId, QueueChange),
    /// Adds or replaces a schedule. The committer sets when it was created and whether it is paused. The time is read from the wall
    /// clock, in Unix milliseconds.
    SetSchedule(QueueId, Box<ScheduleRow>, i64),
    RemoveSchedule(QueueId, String, ScheduleSource),
    /// Pauses or resumes a schedule, at this time of the wall clock.
    PauseSchedule(QueueId, String, bool, i64),
    /// Purges all messages of a queue, or the backlog of one group.
    Purge(QueueId, Option<GroupId>),
}

/// Groups commands that need similar things of a disk, to report which of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CommandKind {
    /// New messages.
    Send,
    /// Delayed messages.
    Delay,
    /// Ends of leases.
    Settle,
    /// Deletion of messages.
    Expire,
    /// Queues, groups, tags and label filters.
    Admin,
}

impl Command {
    /// The kind of the command.
    pub(crate) fn kind(&self) -> CommandKind {
        match self {
            Self::Append(..) | Self::Tick(_) => CommandKind::Send,
            Self::EndDelays { .. } | Self::DropDelayed(..) => CommandKind::Delay,
            Self::EndLeases(_) | Self::Skip(..) | Self::Retry { .. } => CommandKind::Settle,
            Self::Expire { .. } | Self::DropSettled(_) => CommandKind::Expire,
            Self::Admin(_) | Self::Stop => CommandKind::Admin,
        }
    }

    /// Whether the command is committed alone.
    pub(crate) fn commits_alone(&self) -> bool {
        matches!(self, Self::Admin(_) | Self::Stop)
    }

    /// An estimate of the bytes that the command adds to a commit.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append(_, messages) => messages.iter().map(|message| message.json.len()).sum(),
            Self::Retry { message, original, .. } => {
                message.json.len() + original.as_ref().map_or(0, |original| original.json.len())
            }
            Self::Tick(tick) => tick.bytes,
            Self::EndDelays { due, .. } => due.iter().map(|message| message.json.len()).sum(),
            _ => 0,
        }
    }
}

/// A command and the caller who waits for its outcome.
#[derive(Debug)]
pub(crate) struct Request {
    /// The change.
    pub(crate) command: Command,
    /// Where the prepared change appends messages.
    pub(crate) appended: Appended,
    /// Takes the outcome.
    pub(crate) reply: Reply,
}
