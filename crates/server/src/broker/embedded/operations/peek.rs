//! Looking at a group's messages without leasing any.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    broker::{BrokerError, GroupPath, PeekState, Peeked, Stream, embedded::core::Core},
    store::{ReadLimit, ReaderNo, Stored, StreamNo},
};

/// Messages that are not due are shown behind all others, their places counted from here.
const LOT_BASE: u64 = 1 << 40;
/// The most messages and bytes of one look.
const MOST: ReadLimit = ReadLimit { messages: 1_000, bytes: 16 * 1024 * 1024 };

/// What the state knows of the messages from a place on.
struct Sketch {
    /// Whose label rule counts.
    reader: ReaderNo,
    /// What it reads.
    stream: StreamNo,
    /// What will come into it.
    lot: Option<StreamNo>,
    /// Leased and failed ones.
    known: BTreeMap<u64, (PeekState, u32)>,
    /// All from here on are available.
    head: u64,
}

/// Shows up to `max` messages from `from` on: leased, available, then those that are not due.
pub(crate) async fn peek(
    core: &Core,
    path: &GroupPath,
    stream: Stream,
    from: u64,
    max: usize,
) -> Result<Vec<Peeked>, BrokerError> {
    let max = max.min(MOST.messages);
    let sketch = sketch(core, path, stream, from, max)?;
    let mut shown = Vec::new();
    let known: Vec<u64> = sketch.known.keys().copied().take(max).collect();
    let (number, asked) = (sketch.stream, known);
    let found = core.read_store(move |store| store.read_these(number, &asked, MOST.bytes)).await;
    let found = found.map_err(store_error)?.messages;
    let state = |message: &Stored| sketch.known.get(&message.seq).copied();
    shown.extend(
        core.passing(sketch.reader, &found)
            .filter_map(|message| state(message).map(|(state, failures)| show(message, message.seq, state, failures))),
    );
    if shown.len() < max && from < LOT_BASE {
        let (place, limit) = (sketch.head.max(from), ReadLimit { messages: max - shown.len(), ..MOST });
        let found = core.read_store(move |store| store.read(number, place, limit)).await.map_err(store_error)?.messages;
        let available = |message: &Stored| show(message, message.seq, PeekState::Available, 0);
        shown.extend(core.passing(sketch.reader, &found).map(available));
    }
    if let Some(lot) = sketch.lot.filter(|_| shown.len() < max) {
        let (place, limit) = (from.saturating_sub(LOT_BASE), ReadLimit { messages: max - shown.len(), ..MOST });
        let found = core.read_store(move |store| store.read(lot, place, limit)).await.map_err(store_error)?.messages;
        let now_ms = core.clock.now_ms();
        for message in found {
            let left = u64::try_from(message.entered_ms.saturating_sub(now_ms)).unwrap_or(0);
            let state = PeekState::Delayed(std::time::Duration::from_millis(left));
            shown.push(show(&message, LOT_BASE + message.seq, state, 0));
        }
    }
    Ok(shown)
}

impl Core {
    /// Those of the messages that the label rule of a reader lets pass.
    fn passing<'a>(&self, reader: ReaderNo, messages: &'a [Arc<Stored>]) -> impl Iterator<Item = &'a Stored> {
        let state = self.lock();
        let passes = |message: &&Arc<Stored>| state.readers.get(&reader).is_some_and(|reader| reader.passes(message));
        messages.iter().filter(passes).map(AsRef::as_ref).collect::<Vec<_>>().into_iter()
    }
}

fn sketch(core: &Core, path: &GroupPath, which: Stream, from: u64, max: usize) -> Result<Sketch, BrokerError> {
    let state = core.open()?;
    let (queue, number) = state.reader_of(path, which, &core.at())?;
    let reader = state.readers.get(&number).ok_or(BrokerError::GroupNotFound)?;
    let ready = reader.ready_from(from).take(max).map(|(seq, failures)| (seq, (PeekState::Available, failures)));
    let mut known: BTreeMap<_, _> = ready.collect();
    let now = Instant::now();
    for lease in reader.leases.values() {
        let left = lease.deadline.saturating_duration_since(now);
        for entry in lease.entries.iter().filter(|entry| entry.message.seq >= from.max(reader.purged)) {
            known.insert(entry.message.seq, (PeekState::Leased(left), entry.failures));
        }
    }
    let lot = (which == Stream::Messages).then(|| queue.row.lot());
    Ok(Sketch { reader: number, stream: reader.stream, lot, known, head: reader.head() })
}

fn show(message: &Stored, sequence: u64, state: PeekState, failures: u32) -> Peeked {
    let (json, dead_letter) = (message.json.clone(), message.dead_letter.clone());
    Peeked { sequence, json, state, failures, entered_ms: message.entered_ms, dead_letter }
}

fn store_error(error: crate::store::StoreError) -> BrokerError {
    BrokerError::Store(error.0)
}
