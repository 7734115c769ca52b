//! Finds a message by its id: where it is, and its state for each group.
//!
//! An id names the first place of the message. Copies, dead letters and messages whose delay has ended carry the id. They entered their
//! streams no earlier than the message did, so the search begins there.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError, FoundIn, FoundMessage, GroupStanding, MessageOrigin, Standing,
        embedded::{core::Core, operations::look::LOOK, state::BrokerState},
    },
    store::{CursorId, FailureHistory, FirstPlace, GroupRow, QueueRow, ReadLimit, StoredMessage, StreamId},
};
use dms_protocol::queue::{ProjectId, QueueId};

/// The maximum number of messages of a stream that one search of several queues reads.
const MAX_SEARCHED: u64 = 10_000;
/// The same if it searches one queue.
const MAX_SEARCHED_OF_ONE: u64 = 100_000;
/// The maximum number of messages that one search reads altogether, and of their bytes.
const MAX_SEARCHED_IN_ALL: ReadLimit = ReadLimit { messages: 500_000, bytes: 1024 * 1024 * 1024 };
/// The number of messages with one id at which the search of a stream ends. A sender may give any number of copies the same id.
const MAX_HITS: usize = 100;
/// The limits of one read. A search keeps at most as many bytes of messages that it found.
const PAGE: ReadLimit = ReadLimit { messages: 500, ..LOOK };

/// What a search may still read and keep.
struct Allowance {
    /// Messages of each stream.
    of_stream: u64,
    /// Messages and bytes of all streams.
    read: ReadLimit,
    /// Bytes of messages that were found.
    kept: usize,
}

/// A stream to search.
struct Place {
    stream: StreamId,
    /// Numbers the messages that have always been in this stream.
    owner: String,
    kind: FirstPlace,
    /// The messages `low..next`.
    low: u64,
    next: u64,
    /// Every group has settled the messages below this one.
    settled_below: u64,
}

/// The places of a queue.
struct QueuePlaces {
    row: QueueRow,
    groups: Vec<GroupRow>,
    messages: Place,
    delayed: Place,
    dead_letters: Vec<Place>,
}

/// Messages with the id that was searched, and whether all messages were looked at.
struct Hits {
    messages: Vec<Arc<StoredMessage>>,
    complete: bool,
}

/// Finds a message in these queues.
pub(crate) async fn find(
    core: &Core,
    project: &ProjectId,
    queues: &[QueueId],
    id: MessageOrigin,
) -> Result<FoundMessage, BrokerError> {
    let _look = core.look().await?;
    let mut found = FoundMessage { complete: true, places: Vec::new() };
    let of_stream = if queues.len() == 1 { MAX_SEARCHED_OF_ONE } else { MAX_SEARCHED };
    let mut allowance = Allowance { of_stream, read: MAX_SEARCHED_IN_ALL, kept: PAGE.bytes };
    for queue in queues {
        let places = {
            let state = core.open()?;
            match state.queue(project, queue) {
                Ok(_) => state.places(queue),
                // It was deleted meanwhile.
                Err(_) => None,
            }
        };
        if let Some(places) = places {
            places.search(core, id, &mut allowance, &mut found).await?;
        }
    }
    Ok(found)
}

impl QueuePlaces {
    async fn search(
        &self,
        core: &Core,
        id: MessageOrigin,
        allowance: &mut Allowance,
        found: &mut FoundMessage,
    ) -> Result<(), BrokerError> {
        let Hits { messages, complete } = self.messages.search(core, id, allowance).await?;
        found.complete &= complete;
        for message in messages {
            let groups = self.standings(core, &message);
            found.places.push(self.place(&message, FoundIn::Queue, groups));
        }
        let Hits { messages, complete } = self.delayed.search(core, id, allowance).await?;
        found.complete &= complete;
        found.places.extend(messages.iter().map(|message| self.place(message, FoundIn::Delayed, Vec::new())));
        for (group, place) in self.groups.iter().zip(&self.dead_letters) {
            let Hits { messages, complete } = place.search(core, id, allowance).await?;
            found.complete &= complete;
            for message in messages {
                let standing = core.lock().standing(group, group.dead_letter_cursor(), &message);
                let Some(standing) = standing.filter(|group| group.standing != Standing::Settled) else { continue };
                found.places.push(self.place(&message, FoundIn::DeadLetters, vec![standing]));
            }
        }
        Ok(())
    }

    fn place(
        &self,
        message: &StoredMessage,
        found_in: FoundIn,
        groups: Vec<GroupStanding>,
    ) -> crate::broker::FoundPlace {
        crate::broker::FoundPlace {
            queue: self.row.id.clone(),
            queue_name: self.row.name.clone(),
            found_in,
            sequence: message.seq,
            entered_ms: message.entered_ms,
            json: message.json.clone(),
            dead_letter: message.dead_letter.clone(),
            groups,
        }
    }

    fn standings(&self, core: &Core, message: &StoredMessage) -> Vec<GroupStanding> {
        let state = core.lock();
        self.groups.iter().filter_map(|group| state.standing(group, group.cursor(), message)).collect()
    }
}

impl BrokerState {
    /// The streams of a queue that have to be searched.
    fn places(&self, queue: &QueueId) -> Option<QueuePlaces> {
        let queue = self.queues.get(queue)?;
        let place = |stream: StreamId, owner: &str, kind| {
            let of = self.streams.get(&stream)?;
            let settled = of.cursors.iter().filter_map(|cursor| self.cursors.get(cursor));
            let settled_below = settled.map(|cursor| cursor.settled_below()).min().unwrap_or(of.low).max(of.low);
            Some(Place { stream, owner: owner.to_owned(), kind, low: of.low, next: of.next, settled_below })
        };
        let delay_queue = self.delay_queues.get(&queue.row.delay_queue())?;
        let id = queue.row.id.as_str();
        let dead =
            queue.groups.iter().map(|group| place(group.dead_letters(), group.id.as_str(), FirstPlace::DeadLetters));
        Some(QueuePlaces {
            messages: place(queue.row.stream(), id, FirstPlace::Queue)?,
            delayed: Place {
                stream: queue.row.delay_queue(),
                owner: id.to_owned(),
                kind: FirstPlace::DelayQueue,
                low: delay_queue.low,
                next: delay_queue.next,
                settled_below: delay_queue.low,
            },
            dead_letters: dead.collect::<Option<_>>()?,
            row: queue.row.clone(),
            groups: queue.groups.clone(),
        })
    }

    /// The state of a message for a cursor of a group.
    fn standing(&self, group: &GroupRow, cursor: CursorId, message: &StoredMessage) -> Option<GroupStanding> {
        let cursor = self.cursors.get(&cursor)?;
        let now = Instant::now();
        let of = |standing, failures, history: Option<&FailureHistory>| {
            let attempts = history.and_then(|history| history.attempts.as_deref());
            GroupStanding {
                group: group.id.clone(),
                name: group.name.clone(),
                standing,
                failures,
                first_failure_ms: history.and_then(|history| history.first_failure_ms),
                last_failure: history.and_then(|history| history.last.clone()),
                leased_since_ms: None,
                // The failures are also known after a restart.
                handed_out: attempts.map_or(0, |attempts| attempts.count).max(failures),
                attempts: attempts.map(|attempts| attempts.recent.clone()).unwrap_or_default(),
            }
        };
        for lease in cursor.leases.values() {
            if let Some(entry) = lease.entries.iter().find(|entry| entry.message.seq == message.seq) {
                let left = lease.deadline.saturating_duration_since(now);
                let before = of(Standing::Leased(left), entry.failures, Some(&entry.history));
                let handed_out = before.handed_out.saturating_add(1);
                return Some(GroupStanding { leased_since_ms: lease.began_ms, handed_out, ..before });
            }
        }
        Some(match cursor.failures_of(message.seq) {
            _ if cursor.set_aside.contains(message.seq) => of(Standing::Damaged, 0, None),
            _ if !cursor.passes(message) => of(Standing::Skipped, 0, None),
            Some((failures, history)) => of(Standing::Available, failures, Some(history)),
            None if message.seq >= cursor.head() => of(Standing::Available, 0, None),
            None => of(Standing::Settled, 0, None),
        })
    }
}

impl Allowance {
    fn keep(&mut self, messages: &[Arc<StoredMessage>]) {
        let bytes: usize = messages.iter().map(|message| message.memory_bytes()).sum();
        self.kept = self.kept.saturating_sub(bytes);
    }

    fn is_used_up(&self) -> bool {
        self.read.messages == 0 || self.read.bytes == 0 || self.kept == 0
    }
}

impl Place {
    fn is_it(&self, message: &StoredMessage, id: MessageOrigin) -> bool {
        let own = || MessageOrigin::new(&self.owner, self.kind, message.seq, message.entered_ms);
        message.origin.unwrap_or_else(own) == id
    }

    async fn search(&self, core: &Core, id: MessageOrigin, allowance: &mut Allowance) -> Result<Hits, BrokerError> {
        let mut hits = Hits { messages: Vec::new(), complete: true };
        let first = id.is_of(&self.owner) && id.place() == Some(self.kind);
        if first {
            let (stream, seqs) = (self.stream, [id.sequence()]);
            let read = core.read_store(move |store| store.read_these(stream, &seqs, PAGE.bytes)).await?;
            hits.messages.extend(read.messages.into_iter().filter(|message| self.is_it(message, id)));
            allowance.keep(&hits.messages);
        }
        if self.kind == FirstPlace::DelayQueue {
            self.scan(core, id, self.low, allowance, &mut hits).await?;
            return Ok(hits);
        }
        let entered = self.first_since(core, id.entered_ms()).await?;
        // A message whose delay has ended is near its due time, also if every group has settled it.
        if hits.messages.is_empty() && self.kind == FirstPlace::Queue && id.place() == Some(FirstPlace::DelayQueue) {
            let near = Self { next: self.next.min(entered + PAGE.messages as u64), owner: self.owner.clone(), ..*self };
            near.scan(core, id, entered, allowance, &mut hits).await?;
        }
        self.scan(core, id, entered.max(self.settled_below), allowance, &mut hits).await?;
        Ok(hits)
    }

    /// Looks at the messages from `from` on.
    async fn scan(
        &self,
        core: &Core,
        id: MessageOrigin,
        from: u64,
        allowance: &mut Allowance,
        hits: &mut Hits,
    ) -> Result<(), BrokerError> {
        // Messages that exist are counted, because the places of a delay queue have gaps.
        let (mut at, mut left, stream) = (from, allowance.of_stream, self.stream);
        while at < self.next && left > 0 && hits.messages.len() < MAX_HITS && !allowance.is_used_up() {
            let read = core.read_store(move |store| store.read(stream, at, PAGE)).await?;
            at = read.next(at);
            left = left.saturating_sub(read.messages.len().max(1) as u64);
            allowance.read.subtract(&read.messages);
            let before = hits.messages.len();
            for message in read.messages.into_iter().filter(|message| message.seq < self.next) {
                let known = hits.messages.iter().any(|hit| hit.seq == message.seq);
                if !known && self.is_it(&message, id) {
                    hits.messages.push(message);
                }
            }
            allowance.keep(&hits.messages[before..]);
        }
        hits.complete &= at >= self.next;
        Ok(())
    }

    /// The first message that entered at `time` or later.
    async fn first_since(&self, core: &Core, time: i64) -> Result<u64, BrokerError> {
        let (mut low, mut high, stream) = (self.low, self.next, self.stream);
        while low < high {
            let middle = low + (high - low) / 2;
            let read = core.read_store(move |store| store.entered(stream, middle, 1, i64::MAX)).await?;
            match read.first() {
                Some((seq, entered)) if *entered < time => low = seq + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}
