//! The age of each group's backlog: when its first message that is not settled entered the queue.

use std::collections::HashMap;

use crate::{
    broker::embedded::{
        core::Core,
        operations::admin_ops::LOCK_STEP,
        state::{BrokerState, cursor::Cursor, stream::Stream},
    },
    store::{CursorId, StreamId},
};
use dms_protocol::queue::{GroupId, QueueId};

/// A first message whose entry time has to be read from the store.
#[derive(Debug)]
struct Unread {
    group: GroupId,
    cursor: CursorId,
    stream: StreamId,
    seq: u64,
}

/// The maximum number of messages that one call reads. After a restart none is known, and there may be any number of groups.
const MAX_READS: usize = if cfg!(test) { 3 } else { 2_000 };

/// When the first unsettled message of each group of these queues entered, in Unix milliseconds. Groups without such a message are
/// left out, and so are groups whose message cannot be read now, or only by a later call.
///
/// The entry time of a message that is not in memory is read once and kept with the cursor, so that asking again costs no read
/// while the group stands still.
pub(crate) async fn oldest(core: &Core, queues: &[QueueId]) -> HashMap<GroupId, i64> {
    let (mut known, mut unread) = (HashMap::new(), Vec::new());
    for some in queues.chunks(LOCK_STEP) {
        core.lock().first_unsettled(some, &mut known, &mut unread);
    }
    unread.truncate(MAX_READS);
    if unread.is_empty() {
        return known;
    }
    // One call for all of them, because each call of a blocking store takes a thread.
    let asked: Vec<_> = unread.iter().map(|first| (first.stream, first.seq)).collect();
    let Ok(times) = core.read_store(move |store| store.entered_each(&asked)).await else { return known };
    let mut state = core.lock();
    for (first, time) in unread.into_iter().zip(times) {
        let Some(entered_ms) = time else { continue };
        if let Some(cursor) = state.cursors.get_mut(&first.cursor) {
            cursor.oldest_read = Some((first.seq, entered_ms));
        }
        known.insert(first.group, entered_ms);
    }
    known
}

impl BrokerState {
    /// Adds the entry times that are in memory to `known`, and the messages whose time is not to `unread`.
    fn first_unsettled(&self, queues: &[QueueId], known: &mut HashMap<GroupId, i64>, unread: &mut Vec<Unread>) {
        let queues = queues.iter().filter_map(|queue| self.queues.get(queue));
        for group in queues.flat_map(|queue| &queue.groups) {
            let Some(cursor) = self.cursors.get(&group.cursor()) else { continue };
            let Some(stream) = self.streams.get(&cursor.stream) else { continue };
            let Some(seq) = cursor.first_unsettled(stream) else { continue };
            match entered_ms(cursor, stream, seq) {
                Some(time) => {
                    known.insert(group.id.clone(), time);
                }
                None => {
                    let (group, cursor, stream) = (group.id.clone(), group.cursor(), cursor.stream);
                    unread.push(Unread { group, cursor, stream, seq });
                }
            }
        }
    }
}

/// When a message entered, if that is in memory.
fn entered_ms(cursor: &Cursor, stream: &Stream, seq: u64) -> Option<i64> {
    let time = cursor.entered_ms(seq).or_else(|| stream.cached(seq).map(|message| message.entered_ms))?;
    Some(stream.bounded(seq, time))
}
