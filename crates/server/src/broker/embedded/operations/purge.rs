//! Purging: deletes the messages of a queue, or settles the backlog of one group.

use crate::{
    broker::{
        BrokerError, Purged,
        embedded::{
            command::AdminCommand,
            core::Core,
            state::{BrokerState, cursor::Cursor, stream::Stream},
        },
    },
    store::CursorId,
};
use dms_protocol::queue::{GroupId, ProjectId, QueueId};

impl Core {
    /// Purges a queue, or the backlog of one of its groups.
    pub(crate) async fn purge(
        &self,
        project: &ProjectId,
        id: &QueueId,
        group: Option<&GroupId>,
    ) -> Result<Purged, BrokerError> {
        let purged = {
            let state = self.open()?;
            let queue = state.queue(project, id)?;
            let stream = state.streams.get(&queue.row.stream()).ok_or(BrokerError::QueueNotFound)?;
            match group {
                None => Purged {
                    messages: stream.len(),
                    delayed: state
                        .delay_queues
                        .get(&queue.row.delay_queue())
                        .map_or(0, |delay_queue| delay_queue.count),
                },
                Some(group) => {
                    let cursor = state.cursors.get(&queue.group(group)?.cursor());
                    Purged { messages: cursor.map_or(0, |cursor| backlog(cursor, stream)), delayed: 0 }
                }
            }
        };
        self.change(AdminCommand::Purge(id.clone(), group.cloned())).await?;
        Ok(purged)
    }
}

/// The number of messages that a cursor has not settled, including leased ones.
fn backlog(cursor: &Cursor, stream: &Stream) -> u64 {
    let leased = cursor.leases.values().flat_map(|lease| &lease.entries).map(|entry| entry.message.seq);
    cursor.available(stream) + leased.filter(|seq| *seq >= cursor.purged.max(stream.low)).count() as u64
}

impl BrokerState {
    /// Applies the purge of a cursor.
    pub(crate) fn purge(&mut self, number: CursorId, below: u64) {
        let Some(cursor) = self.cursors.get_mut(&number) else { return };
        cursor.purge(below);
        let stream = cursor.stream;
        self.schedule_settled_check(stream);
    }
}
