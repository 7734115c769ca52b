//! Purging: the messages of a queue, or of one group, are gone for good.

use crate::{
    broker::{
        BrokerError, Purged,
        embedded::{
            command::Admin,
            core::Core,
            state::{State, cursor::Reader, stream::Stream},
        },
    },
    store::ReaderNo,
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
            let queue = state.queue(project, id, &self.at())?;
            let stream = state.streams.get(&queue.row.stream()).ok_or(BrokerError::QueueNotFound)?;
            match group {
                None => Purged {
                    messages: stream.len(),
                    delayed: state.lots.get(&queue.row.lot()).map_or(0, |lot| lot.count),
                },
                Some(group) => {
                    let reader = state.readers.get(&queue.group(group)?.reader());
                    Purged { messages: reader.map_or(0, |reader| backlog(reader, stream)), delayed: 0 }
                }
            }
        };
        self.change(Admin::Purge(id.clone(), group.cloned())).await?;
        Ok(purged)
    }
}

/// How many messages a reader has not settled, leased ones included.
fn backlog(reader: &Reader, stream: &Stream) -> u64 {
    let leased = reader.leases.values().flat_map(|lease| &lease.entries).map(|entry| entry.message.seq);
    reader.available(stream) + leased.filter(|seq| *seq >= reader.purged.max(stream.low)).count() as u64
}

impl State {
    /// The backlog of a reader was purged.
    pub(crate) fn purge(&mut self, number: ReaderNo, below: u64) {
        let Some(reader) = self.readers.get_mut(&number) else { return };
        reader.purge(below);
        let stream = reader.stream;
        self.look_for_settled(stream);
    }
}
