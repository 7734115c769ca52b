//! Shows a group's messages without leasing them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError, GroupPath, MessageOrigin, PeekState, Peeked, Stream,
        embedded::{core::Core, operations::look::LOOK},
    },
    store::{CursorId, FirstPlace, ReadBatch, ReadLimit, StoredMessage, StreamId},
};

/// Delayed messages come after all others; their sequence numbers are shown from here on.
const DELAYED_BASE: u64 = 1 << 40;
/// The maximum number of messages and bytes that one call reads to find some that pass the label filter.
const MAX_SCANNED: ReadLimit = ReadLimit { messages: 200_000, bytes: 256 * 1024 * 1024 };

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
    /// The end of the stream: its next sequence number.
    next: u64,
    /// The delay queue of the stream, if it has one, and its next sequence number.
    delay_queue: Option<(StreamId, u64)>,
    /// Leased and failed messages.
    known: BTreeMap<u64, (PeekState, u32)>,
    /// Whether there are more of these than `known` has.
    has_more: bool,
    /// All messages from here on are available.
    head: u64,
}

/// The messages of one call, and the room for more of them.
struct Page {
    shown: Vec<Peeked>,
    max: usize,
    /// The bytes that are left. The first message is shown whatever its size.
    bytes: usize,
    /// The limits that are left for further reads.
    left: ReadLimit,
}

impl Page {
    fn has_room(&self) -> bool {
        let is_bounded = self.left.messages > 0 && self.left.bytes > 0;
        self.shown.len() < self.max && (self.shown.is_empty() || self.bytes > 0) && is_bounded
    }

    /// What to read next.
    fn limit(&self) -> ReadLimit {
        ReadLimit { messages: self.max - self.shown.len(), bytes: self.bytes.max(1) }
    }

    /// Counts a read against the limits.
    fn read(&mut self, found: &ReadBatch) {
        self.left.subtract(&found.messages);
    }

    fn show(&mut self, bytes: usize, peeked: Peeked) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.shown.push(peeked);
    }
}

/// Returns up to `max` messages from `from` on: leased and failed ones in order, then messages that were never leased, then delayed ones.
/// The next page begins after the last one, and only an empty page is the end.
pub(crate) async fn peek(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    mut from: u64,
    max: usize,
) -> Result<Vec<Peeked>, BrokerError> {
    let _look = core.look().await?;
    let mut page = Page { shown: Vec::new(), max: max.min(LOOK.messages), bytes: LOOK.bytes, left: MAX_SCANNED };
    let mut view = view(core, path, stream, from, page.max)?;
    loop {
        let complete = show_known(core, &view, &mut page).await?;
        // Later messages must not be shown before these: the next page begins after the last message of this one.
        if !complete || view.has_more && !page.shown.is_empty() {
            return Ok(page.shown);
        }
        match view.known.last_key_value() {
            Some((last, _)) if view.has_more => from = last + 1,
            _ => break,
        }
        view = self::view(core, path, stream, from, page.max)?;
    }
    let mut place = view.head.max(from);
    while place < view.next && page.has_room() {
        let (stream, limit) = (view.stream, page.limit());
        let found = core.read_store(move |store| store.read(stream, place, limit)).await?;
        place = found.next(place);
        page.read(&found);
        for message in core.passing(view.cursor, &found.messages).filter(|message| message.seq < view.next) {
            page.show(message.memory_bytes(), view.show(message, message.seq, PeekState::Available, 0));
        }
    }
    if place >= view.next {
        show_delayed(core, &view, from, &mut page).await?;
    }
    Ok(page.shown)
}

/// Shows leased and failed messages. Returns whether all of them were read.
async fn show_known(core: &Core, view: &PeekView, page: &mut Page) -> Result<bool, BrokerError> {
    let mut seqs: Vec<u64> = view.known.keys().copied().collect();
    while let Some(first) = seqs.first().copied() {
        if !page.has_room() {
            return Ok(false);
        }
        let (stream, asked, limit) = (view.stream, seqs.clone(), page.limit());
        let found = core.read_store(move |store| store.read_these(stream, &asked, limit.bytes)).await?;
        let next = found.next(first);
        seqs.retain(|seq| *seq >= next);
        page.read(&found);
        for message in core.passing(view.cursor, &found.messages) {
            if let Some((state, failures)) = view.known.get(&message.seq).copied() {
                page.show(message.memory_bytes(), view.show(message, message.seq, state, failures));
            }
        }
    }
    Ok(true)
}

async fn show_delayed(core: &Core, view: &PeekView, from: u64, page: &mut Page) -> Result<(), BrokerError> {
    let Some((delay_queue, next)) = view.delay_queue else { return Ok(()) };
    let mut place = from.saturating_sub(DELAYED_BASE);
    while place < next && page.has_room() {
        let limit = page.limit();
        let found = core.read_store(move |store| store.read(delay_queue, place, limit)).await?;
        place = found.next(place);
        page.read(&found);
        let now_ms = core.clock.now_ms();
        for message in found.messages {
            let left = u64::try_from(message.entered_ms.saturating_sub(now_ms)).unwrap_or(0);
            let state = PeekState::Delayed(std::time::Duration::from_millis(left));
            page.show(message.memory_bytes(), view.show_delayed(&message, state));
        }
    }
    Ok(())
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

fn view(core: &Core, path: &GroupPath, which: Stream, from: u64, max: usize) -> Result<PeekView, BrokerError> {
    let state = core.open()?;
    let (queue, number) = state.cursor_of(path, which)?;
    let cursor = state.cursors.get(&number).ok_or(BrokerError::GroupNotFound)?;
    let ready = cursor.ready_from(from).take(max + 1).map(|(seq, failures)| (seq, (PeekState::Available, failures)));
    let mut known: BTreeMap<_, _> = ready.collect();
    let now = Instant::now();
    for lease in cursor.leases.values() {
        let left = lease.deadline.saturating_duration_since(now);
        for entry in lease.entries.iter().filter(|entry| entry.message.seq >= from.max(cursor.purged)) {
            known.insert(entry.message.seq, (PeekState::Leased(left), entry.failures));
        }
    }
    let has_more = known.len() > max;
    while known.len() > max {
        known.pop_last();
    }
    let delay_queue = Some(queue.row.delay_queue()).filter(|_| which == Stream::Messages);
    let delay_queue = delay_queue.map(|number| (number, state.delay_queues.get(&number).map_or(0, |queue| queue.next)));
    let (path, stream) = (path.clone(), cursor.stream);
    let next = state.streams.get(&stream).map_or(0, |stream| stream.next);
    Ok(PeekView { path, which, cursor: number, stream, next, delay_queue, known, has_more, head: cursor.head() })
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
