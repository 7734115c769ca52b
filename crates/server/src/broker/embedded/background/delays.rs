//! Moves messages whose delay has ended into their stream.

use crate::{
    broker::{
        BrokerError,
        embedded::{command::Command, core::Core},
    },
    store::{ReadLimit, StreamId},
};

/// The maximum number of due messages in one commit, and of their bytes.
const MAX_DUE: ReadLimit = ReadLimit { messages: 500, bytes: 4 * 1024 * 1024 };
/// The maximum while the store refuses something. Small commits use the last room on a full disk.
const MAX_DUE_WHEN_REFUSING: ReadLimit = ReadLimit { messages: 500, bytes: 64 * 1024 };

/// Moves the due messages of a delay queue into their stream, in the order in which their delays ended.
pub(crate) async fn end_delays(core: &Core, delay_queue: StreamId, stream: StreamId) -> Result<(), BrokerError> {
    // Damaged messages stay first in the queue. Without skipping them, each look would read nothing else.
    let skip = core
        .lock()
        .delay_queues
        .get(&delay_queue)
        .map(|delay_queue| delay_queue.set_aside.places())
        .unwrap_or_default();
    let most = if core.health.refuses() { MAX_DUE_WHEN_REFUSING } else { MAX_DUE };
    let found = core.read_store(move |store| store.first_due(delay_queue, most, &skip)).await;
    let mut due = match found {
        Ok(found) => {
            core.lock().set_aside_due(delay_queue, found.damaged);
            found.messages
        }
        Err(error) => {
            // The timer has taken the queue out of its alarms.
            core.lock().look_at_delay_queue(delay_queue, core.clock.now_ms());
            return Err(error.into());
        }
    };
    let now_ms = core.clock.now_ms();
    let later = due.split_off(due.partition_point(|message| message.entered_ms <= now_ms));
    // If every message that was read is due there may be more, so the next look starts from the last one's time.
    if let Some(next) = later.first().or(due.last()) {
        core.lock().look_at_delay_queue(delay_queue, next.entered_ms);
    }
    if due.is_empty() {
        return Ok(());
    }
    core.submit(Command::EndDelays { delay_queue, stream, due }).outcome().await
}
