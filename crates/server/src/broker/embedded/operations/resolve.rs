//! Operations on one message by its sequence number: a dead letter goes back to its group, or a message is settled.
//!
//! Both lease the message first, whatever is before it, and end the lease in the same moment. So neither a consumer nor another
//! operator can get it meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError, GroupPath, MessageOrigin, NewMessage, Stream,
        ack_status::EDITED,
        embedded::{
            command::Command,
            core::Core,
            reply::Pending,
            state::{
                lease::{LeaseEnd, StopReason},
                receipt::NewReceipts,
            },
        },
    },
    store::{CursorId, StoreError, StoredMessage},
};
use dms_protocol::{internal::text::cut, message::DeadLetterInfo};

/// How long the message may stay leased if its change cannot be stored.
const LEASE: Duration = Duration::from_secs(30);
/// The maximum length of the error that is kept with a dead letter, in bytes.
const MAX_ERROR: usize = 1_024;

/// The operation on a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resolve {
    /// A dead letter is delivered to its group again, as a new message with the same id. Other groups do not get it.
    Retry(MessageOrigin),
    /// The same with another content. The dead letter as it was is kept beside it.
    Edit(MessageOrigin, NewMessage),
    /// The message is settled for the group.
    Discard,
}

/// Resolves a message of a group.
///
/// # Errors
/// [`BrokerError::NotAvailable`] when it is leased, settled, or behind too many other messages.
pub(crate) async fn resolve(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    sequence: u64,
    what: Resolve,
) -> Result<(), BrokerError> {
    let message = read(core, path, stream, sequence).await?;
    let (pending, lease) = begin(core, path, stream, &message, what)?;
    let outcome = pending.outcome().await;
    if outcome.is_err() {
        // Otherwise the message would be leased until the lease lapses.
        core.release(lease).await;
    }
    outcome
}

async fn read(core: &Core, path: &GroupPath, which: Stream, sequence: u64) -> Result<Arc<StoredMessage>, BrokerError> {
    let stream = {
        let state = core.open()?;
        let (_, cursor) = state.cursor_of(path, which)?;
        state.cursors.get(&cursor).ok_or(BrokerError::GroupNotFound)?.stream
    };
    let found = core.read_store(move |store| store.read_these(stream, &[sequence], usize::MAX)).await?;
    found.messages.into_iter().next().ok_or(BrokerError::NotAvailable("the message was deleted".into()))
}

fn begin(
    core: &Core,
    path: &GroupPath,
    which: Stream,
    message: &Arc<StoredMessage>,
    what: Resolve,
) -> Result<(Pending, (CursorId, u64)), BrokerError> {
    let receipts = NewReceipts::draw(1).map_err(StoreError::new)?;
    let mut guard = core.open()?;
    let state = &mut *guard;
    let (queue, number) = state.cursor_of(path, which)?;
    let (target, group) = (queue.row.stream(), queue.group(&path.group)?.cursor());
    let cursor = state.cursors.get_mut(&number).ok_or(BrokerError::GroupNotFound)?;
    let stream = state.streams.get(&cursor.stream).ok_or(BrokerError::GroupNotFound)?;
    cursor.check_passing(stream, message.seq)?;
    let (entry, skipped) = cursor.take_one(stream, message)?;
    state.notice_pause();
    if state.deadlines.is_empty() {
        core.heartbeat.notify_one();
    }
    let lease = state.next_lease;
    let deadline = Instant::now() + LEASE;
    state.lease((&path.project, number), &receipts, vec![entry], skipped, (Some(core.clock.now_ms()), deadline));
    if let Some(lease) = state.cursors.get_mut(&number).and_then(|cursor| cursor.leases.get_mut(&lease)) {
        // Under the same lock, so that the timer cannot end the lease before the command does.
        lease.is_ending = true;
        // If the change cannot be stored and the caller is gone, the lease lapses without counting a failure.
        lease.is_operators = true;
    }
    state.timer_is_stale = true;
    let end =
        (number, lease, LeaseEnd::Acknowledged { settled: 1, rejected: Vec::new(), stop: StopReason::Failed(None) });
    let command = match what {
        Resolve::Discard => Command::EndLeases(vec![end]),
        Resolve::Retry(origin) => {
            Command::Retry { stream: target, group, message: message.clone(), origin, original: None, end }
        }
        Resolve::Edit(origin, copy) => {
            let edited =
                StoredMessage { json: copy.json, body_bytes: copy.body_bytes, ..StoredMessage::clone(message) };
            let original = StoredMessage {
                dead_letter: Some(Arc::new(edited_from(message))),
                origin: Some(origin),
                ..StoredMessage::clone(message)
            };
            let (message, original) = (Arc::new(edited), Some(Arc::new(original)));
            Command::Retry { stream: target, group, message, origin, original, end }
        }
    };
    Ok((core.submit(command), (number, lease)))
}

/// The details of the original of an edited copy: as before, except for the reason, which the error then names.
fn edited_from(message: &StoredMessage) -> DeadLetterInfo {
    let mut info = message.dead_letter.as_deref().cloned().unwrap_or_default();
    if info.reason != EDITED {
        let before = match &info.error {
            Some(error) => format!("{}: {error}", info.reason),
            None => info.reason.clone(),
        };
        info.error = Some(cut(&before, MAX_ERROR).to_owned()).filter(|before| !before.is_empty());
        EDITED.clone_into(&mut info.reason);
    }
    info
}

impl Core {
    /// Hands back a message whose change failed.
    async fn release(&self, (cursor, lease): (CursorId, u64)) {
        let pending = {
            let mut state = self.lock();
            let open = state.cursors.get_mut(&cursor).and_then(|cursor| cursor.leases.get_mut(&lease));
            let Some(open) = open.filter(|lease| !lease.is_ending) else { return };
            open.is_ending = true;
            self.submit(Command::EndLeases(vec![(cursor, lease, LeaseEnd::Released)]))
        };
        // If this fails too, the lease lapses.
        let _ = pending.outcome().await;
    }
}
