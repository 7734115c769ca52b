//! What is asked of the committer: one [`Work`] for each change, with the answer it owes.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    broker::{
        BrokerError, NewMessage, RetentionPolicy,
        embedded::state::{label_filter::LabelRule, lease::Ending},
    },
    store::{QueueRow, ReaderNo, Settlement, Stored, StreamNo},
};
use dms_protocol::queue::{GroupId, QueueId, QueueTag};

/// A change that was found possible when it was asked for, and is looked at again before it is committed.
#[derive(Debug)]
pub(crate) enum Work {
    /// Messages enter a queue or its lot.
    Append(QueueId, Vec<NewMessage>),
    /// Leases end; they are marked as settling.
    End(Vec<(ReaderNo, u64, Ending)>),
    /// A reader passed over many messages.
    Skip(ReaderNo, Settlement),
    /// Messages of a lot are due: into the stream with them.
    Unpark { lot: StreamNo, stream: StreamNo, due: Vec<Arc<Stored>> },
    /// A message of a lot is given up: due time and place.
    Drop(StreamNo, i64, u64),
    /// Retention has reached this place of a stream.
    Expire { stream: StreamNo, low: u64, oldest: Option<i64> },
    /// What every reader of a stream has settled goes.
    DropSettled(StreamNo),
    /// Queues, groups, tags and rules.
    Admin(Admin),
    /// Nothing comes after this.
    Stop,
}

/// Changes that are committed alone: what follows is judged by their outcome.
#[derive(Debug)]
pub(crate) enum Admin {
    /// The row's number is given at commit.
    CreateQueue(QueueRow),
    DeleteQueue(QueueId),
    CreateGroups(QueueId, Vec<(GroupId, String)>),
    DeleteGroup(QueueId, GroupId),
    PutTags(QueueId, Vec<QueueTag>),
    DeleteTags(QueueId, Vec<(String, Option<String>)>),
    FixRule(ReaderNo, LabelRule),
    SetRetention(QueueId, RetentionPolicy),
    /// All messages of a queue, or those of one group.
    Purge(QueueId, Option<GroupId>),
}

/// What a change is about: those of one kind mostly need the same of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Messages enter.
    Send,
    /// Delayed messages move.
    Delay,
    /// Leases end.
    Settle,
    /// Messages are gone.
    Expire,
    /// Queues, groups, tags and rules.
    Admin,
}

impl Work {
    /// What it is about.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Append(..) => Kind::Send,
            Self::Unpark { .. } | Self::Drop(..) => Kind::Delay,
            Self::End(_) | Self::Skip(..) => Kind::Settle,
            Self::Expire { .. } | Self::DropSettled(_) => Kind::Expire,
            Self::Admin(_) | Self::Stop => Kind::Admin,
        }
    }

    /// Whether it is committed alone.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Admin(_) | Self::Stop)
    }

    /// Roughly how many bytes it brings.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Append(_, messages) => messages.iter().map(|message| message.json.len()).sum(),
            Self::Unpark { due, .. } => due.iter().map(|message| message.json.len()).sum(),
            _ => 0,
        }
    }
}

/// Work on its way, and who waits for it.
#[derive(Debug)]
pub(crate) struct Job {
    /// The change.
    pub(crate) work: Work,
    /// Where the outcome goes.
    pub(crate) reply: oneshot::Sender<Result<(), BrokerError>>,
}
