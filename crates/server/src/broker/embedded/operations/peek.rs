//! Shows a group's messages without leasing them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::{BrokerError, GroupPath, MessageOrigin, PeekState, Peeked, Stream, embedded::core::Core},
    store::{CursorId, FirstPlace, ReadLimit, StoredMessage, StreamId},
};

/// Delayed messages come after all others; their sequence numbers are shown from here on.
const DELAYED_BASE: u64 = 1 << 40;
/// The maximum number of messages and bytes of one call.
const MAX_PEEKED: ReadLimit = ReadLimit { messages: 1_000, bytes: 16 * 1024 * 1024 };

/// The position of a group, as far as a call needs it.
struct PeekView {
    /// The group.
    path: GroupPath,
    /// Its messages or its dead letters.
    which: Stream,
    /// The cursor, whose label filter applies.
    cursor: CursorId,
    /// The stream.
    stream: StreamId,
    /// The delay queue of the stream, if it has one.
    delay_queue: Option<StreamId>,
    /// Leased and failed messages.
    known: BTreeMap<u64, (PeekState, u32)>,
    /// All messages from here on are available.
    head: u64,
}

/// Returns up to `max` messages from `from` on: leased and available ones in order, then delayed ones.
pub(crate) async fn peek(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    from: u64,
    max: usize,
) -> Result<Vec<Peeked>, BrokerError> {
    let max = max.min(MAX_PEEKED.messages);
    let sketch = sketch(core, path, stream, from, max)?;
    let mut shown = Vec::new();
    let known: Vec<u64> = sketch.known.keys().copied().take(max).collect();
    let (number, asked) = (sketch.stream, known);
    let found = core.read_store(move |store| store.read_these(number, &asked, MAX_PEEKED.bytes)).await;
    let found = found?.messages;
    let state = |message: &StoredMessage| sketch.known.get(&message.seq).copied();
    shown.extend(core.passing(sketch.cursor, &found).filter_map(|message| {
        state(message).map(|(state, failures)| sketch.show(message, message.seq, state, failures))
    }));
    if shown.len() < max && from < DELAYED_BASE {
        let (place, limit) = (sketch.head.max(from), ReadLimit { messages: max - shown.len(), ..MAX_PEEKED });
        let found = core.read_store(move |store| store.read(number, place, limit)).await?.messages;
        let available = |message: &StoredMessage| sketch.show(message, message.seq, PeekState::Available, 0);
        shown.extend(core.passing(sketch.cursor, &found).map(available));
    }
    if let Some(delay_queue) = sketch.delay_queue.filter(|_| shown.len() < max) {
        let (place, limit) =
            (from.saturating_sub(DELAYED_BASE), ReadLimit { messages: max - shown.len(), ..MAX_PEEKED });
        let found = core.read_store(move |store| store.read(delay_queue, place, limit)).await?.messages;
        let now_ms = core.clock.now_ms();
        for message in found {
            let left = u64::try_from(message.entered_ms.saturating_sub(now_ms)).unwrap_or(0);
            let state = PeekState::Delayed(std::time::Duration::from_millis(left));
            shown.push(sketch.show_delayed(&message, state));
        }
    }
    Ok(shown)
}

impl Core {
    /// The messages that pass the label filter of a cursor.
    fn passing<'a>(
        &self,
        cursor: CursorId,
        messages: &'a [Arc<StoredMessage>],
    ) -> impl Iterator<Item = &'a StoredMessage> {
        let state = self.lock();
        let passes =
            |message: &&Arc<StoredMessage>| state.cursors.get(&cursor).is_some_and(|cursor| cursor.passes(message));
        messages.iter().filter(passes).map(AsRef::as_ref).collect::<Vec<_>>().into_iter()
    }
}

fn sketch(core: &Core, path: &GroupPath, which: Stream, from: u64, max: usize) -> Result<PeekView, BrokerError> {
    let state = core.open()?;
    let (queue, number) = state.cursor_of(path, which)?;
    let cursor = state.cursors.get(&number).ok_or(BrokerError::GroupNotFound)?;
    let ready = cursor.ready_from(from).take(max).map(|(seq, failures)| (seq, (PeekState::Available, failures)));
    let mut known: BTreeMap<_, _> = ready.collect();
    let now = Instant::now();
    for lease in cursor.leases.values() {
        let left = lease.deadline.saturating_duration_since(now);
        for entry in lease.entries.iter().filter(|entry| entry.message.seq >= from.max(cursor.purged)) {
            known.insert(entry.message.seq, (PeekState::Leased(left), entry.failures));
        }
    }
    let delay_queue = (which == Stream::Messages).then(|| queue.row.delay_queue());
    let path = path.clone();
    Ok(PeekView { path, which, cursor: number, stream: cursor.stream, delay_queue, known, head: cursor.head() })
}

impl PeekView {
    fn show(&self, message: &StoredMessage, sequence: u64, state: PeekState, failures: u32) -> Peeked {
        let id = message.origin.unwrap_or_else(|| self.path.origin(self.which, message.seq, message.entered_ms));
        let (json, dead_letter) = (message.json.clone(), message.dead_letter.clone());
        Peeked { sequence, json, state, failures, entered_ms: message.entered_ms, dead_letter, id }
    }

    fn show_delayed(&self, message: &StoredMessage, state: PeekState) -> Peeked {
        let queue = self.path.queue.as_str();
        let own = MessageOrigin::new(queue, FirstPlace::DelayQueue, message.seq, message.entered_ms);
        let id = message.origin.unwrap_or(own);
        Peeked { id, ..self.show(message, DELAYED_BASE + message.seq, state, 0) }
    }
}
