//! What is asked of the committer: one [`Command`] for each change, with the answer it owes.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    broker::{
        BrokerError, NewMessage, RetentionChange,
        embedded::state::{label_filter::LabelFilter, lease::LeaseEnd},
    },
    store::{CursorId, QueueRow, Settlement, StoredMessage, StreamId},
};
use dms_protocol::queue::{GroupId, QueueId, QueueTag};

/// A change that was found possible when it was asked for, and is looked at again before it is committed.
#[derive(Debug)]
pub(crate) enum Command {
    /// Messages enter a queue or its lot.
    Append(QueueId, Vec<NewMessage>),
    /// Leases end; they are marked as settling.
    End(Vec<(CursorId, u64, LeaseEnd)>),
    /// A reader passed over many messages.
    Skip(CursorId, Settlement),
    /// Messages of a lot are due: into the stream with them.
    EndDelays { delay_queue: StreamId, stream: StreamId, due: Vec<Arc<StoredMessage>> },
    /// A message of a lot is given up: due time and place.
    Drop(StreamId, i64, u64),
    /// Retention has reached this place of a stream.
    Expire { stream: StreamId, low: u64, oldest: Option<i64> },
    /// What every reader of a stream has settled goes.
    DropSettled(StreamId),
    /// Queues, groups, tags and rules.
    AdminCommand(AdminCommand),
    /// Nothing comes after this.
    Stop,
}

/// Changes that are committed alone: what follows is judged by their outcome.
#[derive(Debug)]
pub(crate) enum AdminCommand {
    /// The row's number is given at commit.
    CreateQueue(QueueRow),
    DeleteQueue(QueueId),
    CreateGroups(QueueId, Vec<(GroupId, String)>),
    DeleteGroup(QueueId, GroupId),
    PutTags(QueueId, Vec<QueueTag>),
    DeleteTags(QueueId, Vec<(String, Option<String>)>),
    FixRule(CursorId, LabelFilter),
    ChangeRetention(QueueId, RetentionChange),
    /// All messages of a queue, or those of one group.
    Purge(QueueId, Option<GroupId>),
}

/// What a change is about: those of one kind mostly need the same of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CommandKind {
    /// Messages enter.
    Send,
    /// Delayed messages move.
    Delay,
    /// Leases end.
    Settle,
    /// Messages are gone.
    Expire,
    /// Queues, groups, tags and rules.
    AdminCommand,
}

impl Command {
    /// What it is about.
    pub(crate) fn kind(&self) -> CommandKind {
        match self {
            Self::Append(..) => CommandKind::Send,
            Self::EndDelays { .. } | Self::Drop(..) => CommandKind::Delay,
            Self::End(_) | Self::Skip(..) => CommandKind::Settle,
            Self::Expire { .. } | Self::DropSettled(_) => CommandKind::Expire,
            Self::AdminCommand(_) | Self::Stop => CommandKind::AdminCommand,
        }
    }

    /// Whether it is committed alone.
    pub(crate) fn commits_alone(&self) -> bool {
        matches!(self, Self::AdminCommand(_) | Self::Stop)
    }

    /// Roughly how many bytes it brings.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append(_, messages) => messages.iter().map(|message| message.json.len()).sum(),
            Self::EndDelays { due, .. } => due.iter().map(|message| message.json.len()).sum(),
            _ => 0,
        }
    }
}

/// Work on its way, and who waits for it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The change.
    pub(crate) command: Command,
    /// Where the outcome goes.
    pub(crate) reply: oneshot::Sender<Result<(), BrokerError>>,
}
