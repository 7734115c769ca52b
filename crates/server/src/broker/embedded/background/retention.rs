//! Deletes messages whose retention is over, and messages that every group has settled.

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError,
        embedded::{command::Command, core::Core, state::alarms::MAX_EXPIRED},
    },
    store::StreamId,
};

/// Deletes messages at the front of a stream that entered at or before `until_ms`, a bounded number of them.
pub(crate) async fn expire(core: &Core, stream: StreamId, low: u64, until_ms: i64) -> Result<(), BrokerError> {
    // Entry times of a wrong clock are in the future. Read from the store, they would keep these messages for too long.
    let entry_time_bound = core.lock().expire_by_bound(stream, low, until_ms);
    if let Some((low, oldest)) = entry_time_bound {
        return core.submit(Command::Expire { stream, low, oldest: Some(oldest) }).outcome().await;
    }
    let entered = core.read_store(move |store| store.entered(stream, low, MAX_EXPIRED, until_ms)).await;
    let entered = entered?;
    let expired = entered.partition_point(|(_, entered_ms)| *entered_ms <= until_ms);
    let kept = entered.get(expired);
    // Without a message that stays, an earlier time is used. The timer then looks once too often, never too late.
    let oldest = kept.or(entered.last()).map(|(_, entered_ms)| *entered_ms);
    let low = match (kept, entered.last()) {
        (Some((seq, _)), _) => *seq,
        (None, Some((last, _))) => last + 1,
        (None, None) => return Ok(()),
    };
    if expired == MAX_EXPIRED {
        core.lock().check_expiry_again(stream);
    }
    core.submit(Command::Expire { stream, low, oldest }).outcome().await
}

/// Deletes messages at the front of a stream that every cursor has settled, a bounded number of them.
pub(crate) async fn drop_settled(core: &Core, stream: StreamId) -> Result<(), BrokerError> {
    // The committer decides how much, because acknowledgements may have been committed since the timer looked.
    core.submit(Command::DropSettled(stream)).outcome().await?;
    let mut state = core.lock();
    if state.settled_prefix(stream).is_some()
        && let Some(stream) = state.streams.get_mut(&stream)
    {
        // One commit deletes a bounded number, and there are more.
        stream.next_settled_check = Some(Instant::now());
    }
    Ok(())
}
