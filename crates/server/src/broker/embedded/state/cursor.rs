//! [`Cursor`]: the position of a group on a stream, that is, which messages are leased, failed and available again, or never leased.
//! Pure.
//!
//! Memory is bounded by the leased and failed messages, not by the backlog: every message below `head` that is neither ready nor
//! leased is settled.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tokio::sync::Notify;

use crate::{
    broker::embedded::state::{
        label_filter::LabelFilter,
        lease::{Lease, LeasedEntry},
        prefetched::Prefetched,
        set_aside::SetAside,
        stream::Stream,
    },
    broker::{Attempt, BrokerError, FailureCause},
    store::{
        Attempts, CursorId, CursorSnapshot, FailureHistory, ReadBatch, ReadLimit, Settlement, StoreError,
        StoredMessage, StreamId,
    },
};
use dms_protocol::limits;

/// How much a cursor reads at once, and keeps ready ahead of its consumers. In bytes, too: 64 large messages for each of many groups
/// would take the memory of the server.
pub(crate) const PREFETCH: ReadLimit = ReadLimit { messages: 256, bytes: 256 * 1024 };
/// How many times as much a cursor reads ahead where there are few of them. A read costs two changes of thread, and reads the run at
/// its end once more.
const FEW_CURSORS_FACTOR: usize = 4;
/// The most bytes that all cursors together read ahead, as long as each has at least [`PREFETCH`].
const ALL_PREFETCH_BYTES: usize = 64 * 1024 * 1024;
/// With this many messages in memory, a batch that is being put together does not wait for more.
const ENOUGH_PREFETCHED: ReadLimit = ReadLimit { messages: MAX_SKIPPED, bytes: 4 * PREFETCH.bytes };
/// The maximum number of failed messages that one read looks up.
const MAX_REREAD: usize = 64;
/// The maximum bytes of failed messages that a cursor keeps in memory.
const MAX_READY_BYTES: usize = 256 * 1024;
/// The maximum number of messages that the label filter skips in one go.
const MAX_SKIPPED: usize = 1_024;

/// The maximum number of messages that become ready ones because a later message is taken.
const MAX_PASSED: u64 = 10_000;

/// The position of a group on a stream.
#[derive(Debug)]
pub(crate) struct Cursor {
    /// The stream.
    pub(crate) stream: StreamId,
    /// Its own number, for messages that are for one group alone.
    pub(crate) number: Option<CursorId>,
    /// The dead-letter stream, and the number of failures after which a message goes there.
    pub(crate) dead: Option<(StreamId, u32)>,
    /// Whether nothing is leased while a batch is leased (FIFO).
    pub(crate) exclusive: bool,
    /// The label filter, fixed by the first consume call of the group.
    pub(crate) rule: Option<LabelFilter>,
    /// The number of messages acknowledged so far.
    pub(crate) consumed: u64,
    /// The leases by number.
    pub(crate) leases: BTreeMap<u64, Lease>,
    /// Wakes one waiting call when messages may be available.
    pub(crate) wake: Arc<Notify>,
    /// Wakes the calls that wait for a read of the store.
    pub(crate) read_done: Arc<Notify>,
    /// Whether a read of the store is under way.
    pub(crate) reading: bool,
    /// Why the last read failed. The next call takes it.
    pub(crate) read_error: Option<StoreError>,
    /// The number of waiting calls.
    pub(crate) polls: usize,
    /// Damaged messages: they are not delivered and not settled.
    pub(crate) set_aside: SetAside,
    /// Messages below this one were purged. Leased ones among them are not redelivered.
    pub(crate) purged: u64,
    /// The number of messages that retention deleted before they were consumed, since the broker was opened.
    pub(crate) expired_unread: u64,
    /// The entry time of the first unsettled message, once it was read: its sequence number, Unix milliseconds.
    pub(crate) oldest_read: Option<(u64, i64)>,
    /// No message from here on was looked at.
    head: u64,
    /// Every skipped message below this one belongs to a lease or was recorded.
    recorded_head: u64,
    /// Skipped messages among the ready ones, to be recorded with the next lease.
    skipped: Vec<Range<u64>>,
    /// Messages below `head` that are available again.
    ready: BTreeMap<u64, Ready>,
    /// How much memory the ready messages take.
    ready_bytes: usize,
    /// Failures of messages that are set aside. They count again when the messages can be read.
    failures_of_set_aside: BTreeMap<u64, Ready>,
    /// Messages read from the store, from `head` on.
    prefetched: Prefetched,
}

/// A message that failed, or was leased when the broker stopped.
#[derive(Debug)]
struct Ready {
    /// The number of failures so far.
    failures: u32,
    /// The history of the failures.
    history: FailureHistory,
    /// The message, if it is in memory.
    message: Option<Arc<StoredMessage>>,
}

impl Ready {
    fn new(failures: u32) -> Self {
        Self { failures, history: FailureHistory::default(), message: None }
    }

    fn memory_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.memory_bytes()) + memory_bytes(&self.history)
    }
}

/// The memory that a failure history takes, in bytes.
fn memory_bytes(history: &FailureHistory) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let cause = |cause: &Arc<FailureCause>| 160 + length(&cause.error) + length(&cause.worker) + length(&cause.reason);
    let attempts = |attempts: &Arc<Attempts>| 48 + attempts.recent.len() * size_of::<Attempt>();
    history.last.as_ref().map_or(0, cause) + history.attempts.as_ref().map_or(0, attempts)
}

/// How much a consume call wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimit {
    /// The maximum number of messages.
    pub(crate) messages: usize,
    /// The maximum bytes of bodies. The first message is leased whatever its size.
    pub(crate) bytes: usize,
}

/// The result of taking messages from a cursor.
#[derive(Debug)]
pub(crate) enum Take {
    /// A batch to be leased, and the ranges that were skipped on the way.
    Batch(Vec<LeasedEntry>, Vec<Range<u64>>),
    /// The store has to be read first.
    Missing(ReadRequest),
    /// Many messages were skipped. The caller lets other tasks run, then tries again.
    More,
    /// Nothing is available.
    Nothing,
}

/// A read of the store that a cursor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadRequest {
    /// Messages from `place` on. The stream ended before `end` when the read was requested.
    From { place: u64, end: u64 },
    /// Messages with these sequence numbers.
    Sequences(Vec<u64>),
}

/// How much a cursor reads ahead where there are so many of them.
pub(crate) fn prefetch_among(cursors: usize) -> ReadLimit {
    let factor = (ALL_PREFETCH_BYTES / PREFETCH.bytes / cursors.max(1)).clamp(1, FEW_CURSORS_FACTOR);
    ReadLimit { messages: PREFETCH.messages * factor, bytes: PREFETCH.bytes * factor }
}

/// A batch that is being put together.
struct BatchBuilder {
    want: BatchLimit,
    bytes: usize,
    entries: Vec<LeasedEntry>,
}

impl BatchBuilder {
    /// Adds a message if there is room. The first one always has room.
    fn push(&mut self, message: &Arc<StoredMessage>, failures: u32, history: &FailureHistory) -> bool {
        let bytes = self.bytes + message.body_bytes;
        if self.is_full() || !self.entries.is_empty() && bytes > self.want.bytes {
            return false;
        }
        self.bytes = bytes;
        if self.entries.is_empty() {
            self.entries.reserve_exact(self.want.messages.min(limits::MAX_MESSAGES));
        }
        self.entries.push(LeasedEntry { message: message.clone(), failures, history: history.clone() });
        true
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.want.messages
    }
}

impl Cursor {
    /// Restores a cursor from a snapshot.
    pub(crate) fn new(stream: StreamId, mark: CursorSnapshot) -> Self {
        let ready = mark.ready.into_iter().map(|(seq, failures)| (seq, Ready::new(failures))).collect();
        Self {
            stream,
            number: None,
            dead: None,
            exclusive: false,
            rule: mark.rule.as_ref().map(LabelFilter::new),
            consumed: mark.consumed,
            leases: BTreeMap::new(),
            wake: Arc::new(Notify::new()),
            read_done: Arc::new(Notify::new()),
            reading: false,
            read_error: None,
            polls: 0,
            purged: 0,
            expired_unread: 0,
            oldest_read: None,
            head: mark.head,
            recorded_head: mark.head,
            skipped: Vec::new(),
            ready,
            ready_bytes: 0,
            set_aside: SetAside::default(),
            failures_of_set_aside: BTreeMap::new(),
            prefetched: Prefetched::default(),
        }
    }

    /// Takes the next messages: failed ones first, then new ones, each in the order of the stream.
    pub(crate) fn take(&mut self, stream: &Stream, want: BatchLimit) -> Take {
        if self.is_blocked() {
            return Take::Nothing;
        }
        // Retention may have deleted messages that this group never got.
        self.advance_to(self.head.max(stream.low));
        let mut draft = BatchBuilder { want, bytes: 0, entries: Vec::new() };
        match self.draft_ready(&mut draft) {
            Drafted::Missing(read) => return Take::Missing(read),
            Drafted::Full => {}
            Drafted::Rest => match self.draft_new(stream, &mut draft) {
                Ok(head) => self.advance_to(head),
                Err(otherwise) => return otherwise,
            },
        }
        if draft.entries.is_empty() {
            return Take::Nothing;
        }
        for entry in &draft.entries {
            self.remove_ready(entry.message.seq);
        }
        // With the lease, so that a restart before the end of the lease looks at the skipped messages again, and
        // after it does not.
        let skipped = self.take_skipped(stream.low, &draft.entries);
        Take::Batch(draft.entries, skipped)
    }

    /// Takes one message, whatever is before it. Also returns the ranges that were skipped before.
    ///
    /// # Errors
    /// When the message is leased, settled or damaged, or too many messages before it were never leased.
    pub(crate) fn take_one(
        &mut self,
        stream: &Stream,
        message: &Arc<StoredMessage>,
    ) -> Result<(LeasedEntry, Vec<Range<u64>>), BrokerError> {
        let seq = message.seq;
        self.advance_to(self.head.max(stream.low));
        if seq < stream.low.max(self.purged) || self.set_aside.contains(seq) {
            return Err(BrokerError::NotAvailable("the message was deleted or is damaged".into()));
        }
        let entry = |failures, history| LeasedEntry { message: message.clone(), failures, history };
        if seq < self.head {
            let ready = self.take_ready(seq);
            let Ready { failures, history, .. } =
                ready.ok_or(BrokerError::NotAvailable("the message is leased or settled".into()))?;
            return Ok((entry(failures, history), self.take_skipped(stream.low, &[])));
        }
        if seq - self.head > MAX_PASSED {
            return Err(passes_too_many());
        }
        // Recorded first, because the messages that are passed now must not count as skipped.
        let skipped = self.take_skipped(stream.low, &[]);
        for passed in (self.head..seq).filter(|passed| !self.set_aside.contains(*passed)) {
            // Below the head every message is ready, leased or settled, and these are not settled.
            self.ready.insert(passed, Ready::new(0));
        }
        self.advance_to(seq + 1);
        self.recorded_head = self.head;
        Ok((entry(0, FailureHistory::default()), skipped))
    }

    /// Checks that an operator who takes one message after the other does not pass more and more of them: they stay in memory until
    /// they are consumed.
    ///
    /// # Errors
    /// When too many messages before this one were passed or would be.
    pub(crate) fn check_passing(&self, stream: &Stream, seq: u64) -> Result<(), BrokerError> {
        let passed = seq.saturating_sub(self.head.max(stream.low));
        match passed > 0 && self.ready.len() as u64 + passed > MAX_PASSED {
            true => Err(passes_too_many()),
            false => Ok(()),
        }
    }

    /// Whether [`take_one`](Self::take_one) would take the message.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only stores in PostgreSQL change their owner"))]
    pub(crate) fn can_take(&self, stream: &Stream, seq: u64) -> bool {
        let head = self.head.max(stream.low);
        let is_there = if seq < head { self.ready.contains_key(&seq) } else { seq - head <= MAX_PASSED };
        is_there && seq >= stream.low.max(self.purged) && !self.set_aside.contains(seq)
    }

    fn draft_ready(&mut self, draft: &mut BatchBuilder) -> Drafted {
        let mut drafted = Drafted::Rest;
        let mut skipped = Vec::new();
        for (&seq, ready) in &self.ready {
            // The order of the stream is kept: a failed message that has to be read first is not passed by later
            // ones.
            let Some(message) = &ready.message else {
                drafted = Drafted::Missing(self.read_ready(seq));
                break;
            };
            if !self.passes(message) {
                skipped.push(seq);
            } else if !draft.push(message, ready.failures, &ready.history) {
                drafted = Drafted::Full;
                break;
            }
        }
        for seq in skipped {
            self.remove_ready(seq);
            self.skipped.push(seq..seq + 1);
        }
        drafted
    }

    /// Adds messages that were never leased. Returns where `head` is after them.
    fn draft_new(&mut self, stream: &Stream, draft: &mut BatchBuilder) -> Result<u64, Take> {
        let mut at = self.head;
        let mut skipped = 0;
        while at < stream.next && !draft.is_full() {
            if self.set_aside.contains(at) {
                at += 1;
                continue;
            }
            let Some(message) = stream.cached(at).or_else(|| self.prefetched.get(at)) else {
                if draft.entries.is_empty() {
                    // So that the skipped messages are not looked at again after the read.
                    self.advance_to(at);
                } else if self.has_enough_prefetched() {
                    // The label filter may match nothing for a long way, so this batch is enough.
                    break;
                }
                return Err(Take::Missing(ReadRequest::From { place: at, end: stream.next }));
            };
            if self.passes(message) {
                if !draft.push(message, 0, &FailureHistory::default()) {
                    break;
                }
            } else {
                skipped += 1;
            }
            at += 1;
            // The caller holds the lock of the state, so it gets it back after a bounded number of skipped messages.
            if skipped == MAX_SKIPPED {
                if draft.entries.is_empty() {
                    self.advance_to(at);
                    return Err(Take::More);
                }
                break;
            }
        }
        Ok(at)
    }

    /// The next read ahead, so that consuming a backlog does not wait for every read. `most` is what the cursor keeps ready.
    pub(crate) fn prefetch(&self, stream: &Stream, most: ReadLimit) -> Option<ReadRequest> {
        let place = self.set_aside.first_not_in(self.prefetched.last()? + 1);
        let low = ReadLimit { messages: most.messages / 2, bytes: most.bytes / 2 };
        let is_low = self.prefetched.is_below(low) && !self.reading;
        let there = place < stream.next && stream.cached(place).is_none();
        (is_low && there).then_some(ReadRequest::From { place, end: stream.next })
    }

    /// Takes the result of a read. Messages that the store no longer has were expired meanwhile and are skipped. Damaged ones are
    /// set aside.
    pub(crate) fn fill(&mut self, read: &ReadRequest, found: ReadBatch) {
        let purged = self.purged;
        for damaged in found.damaged.into_iter().filter(|damaged| damaged.seq >= purged) {
            if let Some(ready) = self.take_ready(damaged.seq) {
                // Its failures are kept, because the message may be readable again later, and its attempts are counted on.
                self.failures_of_set_aside.insert(damaged.seq, Ready { message: None, ..ready });
            }
            self.set_aside.add(damaged);
        }
        match read {
            ReadRequest::From { place, end } => self.fill_prefetched((*place, *end), found.messages, found.until),
            ReadRequest::Sequences(seqs) => {
                found.messages.into_iter().for_each(|message| self.keep(message));
                for seq in seqs.iter().filter(|seq| **seq < found.until) {
                    // The store no longer has it: it expired while it was waiting to be read.
                    if self.ready.get(seq).is_some_and(|ready| ready.message.is_none()) {
                        self.remove_ready(*seq);
                    }
                }
            }
        }
    }

    fn fill_prefetched(&mut self, (place, end): (u64, u64), messages: Vec<Arc<StoredMessage>>, until: u64) {
        // Only if no other call has moved the head since the read was requested.
        if self.head == place {
            self.advance_to(messages.first().map_or(end.min(until), |message| message.seq));
        }
        let mut next = self.prefetched.last().map_or(self.head, |last| last + 1);
        for message in messages {
            if message.seq < next {
                continue;
            }
            next = self.set_aside.first_not_in(next);
            // A gap would hide messages that exist, so the rest is read again later.
            if message.seq != next {
                return;
            }
            self.prefetched.push(message);
            next += 1;
        }
    }

    /// Applies the end of a lease, or a record of skipped messages. Returns the lease.
    pub(crate) fn settle(&mut self, lease: Option<u64>, settlement: &Settlement, low: u64) -> Option<Lease> {
        let ended = lease.and_then(|number| self.leases.remove(&number));
        self.consumed += settlement.done.len() as u64;
        // Messages that expired while they were leased are gone.
        for &(seq, failures) in settlement.failed.iter().filter(|(seq, _)| *seq >= low) {
            self.ready.insert(seq, Ready::new(failures));
        }
        self.set_aside.remove(&settlement.skipped);
        if self.set_aside.iter().next().is_none() {
            self.failures_of_set_aside.clear();
        }
        // Settled messages are not ready, and these calls ignore them.
        for entry in ended.iter().flat_map(|lease| &lease.entries) {
            if entry.failures > 0 || entry.history.attempts.is_some() {
                self.remember(entry.message.seq, entry.history.clone());
            }
            // Kept in memory if there is room, because a failed message is usually delivered again soon.
            if self.ready_bytes + entry.message.memory_bytes() <= MAX_READY_BYTES {
                self.keep(entry.message.clone());
            }
        }
        ended
    }

    /// Looks again for messages that the disk did not return. Returns whether there are any.
    pub(crate) fn retry_unreadable(&mut self) -> bool {
        let unreadable = self.set_aside.take_unreadable();
        for one in &unreadable {
            // Above the recorded head a message counts as new; as a ready one it would be recorded as skipped.
            if one.seq < self.recorded_head {
                let ready = self.failures_of_set_aside.remove(&one.seq).unwrap_or_else(|| Ready::new(0));
                self.ready_bytes += ready.memory_bytes();
                self.ready.insert(one.seq, ready);
            } else {
                self.head = self.head.min(one.seq);
            }
        }
        // The prefetched messages have gaps where these were.
        self.prefetched.clear();
        !unreadable.is_empty()
    }

    /// Applies the deletion of the messages below `low`.
    pub(crate) fn expire(&mut self, low: u64) {
        while let Some((&seq, _)) = self.ready.first_key_value().filter(|(seq, _)| **seq < low) {
            self.remove_ready(seq);
        }
        self.set_aside.expire(low);
        self.failures_of_set_aside = self.failures_of_set_aside.split_off(&low);
        self.advance_to(self.head.max(low));
    }

    /// Settles everything below a sequence number, whatever becomes of its leases.
    pub(crate) fn purge(&mut self, below: u64) {
        self.expire(below);
        self.skipped.clear();
        self.recorded_head = self.recorded_head.max(below);
        // Leases cannot be taken back from their consumers, so what becomes of them later is judged by this place.
        self.purged = below;
    }

    /// The first message that is not settled: it may be leased, set aside, or never leased.
    pub(crate) fn settled_below(&self) -> u64 {
        let leased = self.leases.values().flat_map(|lease| &lease.entries).map(|entry| entry.message.seq);
        let ready = self.ready.first_key_value().map(|(seq, _)| *seq);
        let set_aside = self.set_aside.iter().next().map(|damaged| damaged.seq);
        leased
            .filter(|seq| *seq >= self.purged)
            .chain(ready)
            .chain(set_aside)
            .chain([self.head])
            .min()
            .unwrap_or(self.head)
    }

    /// The first message that is leased or available; `None` if there is none. Damaged ones do not count.
    pub(crate) fn first_unsettled(&self, stream: &Stream) -> Option<u64> {
        let leased = self.leases.values().flat_map(|lease| &lease.entries).map(|entry| entry.message.seq);
        let ready = self.ready.first_key_value().map(|(seq, _)| *seq);
        let new = self.head.max(stream.low);
        leased
            .filter(|seq| *seq >= self.purged.max(stream.low))
            .chain(ready)
            .chain((new < stream.next).then_some(new))
            .min()
    }

    /// When a message entered its stream, in Unix milliseconds, if this cursor has it in memory.
    pub(crate) fn entered_ms(&self, seq: u64) -> Option<i64> {
        let leased = || self.leases.values().flat_map(|lease| &lease.entries).map(|entry| &entry.message);
        let ready = || self.ready.get(&seq).and_then(|ready| ready.message.as_ref());
        let in_memory = self.prefetched.get(seq).or_else(ready);
        let message = in_memory.or_else(|| leased().find(|message| message.seq == seq));
        let read = || self.oldest_read.filter(|(of, _)| *of == seq).map(|(_, entered_ms)| entered_ms);
        message.map(|message| message.entered_ms).or_else(read)
    }

    /// The messages skipped since the last lease, if they have reached `MAX_SKIPPED` and are recorded without waiting for a lease.
    pub(crate) fn overdue_skips(&mut self, low: u64) -> Option<Settlement> {
        if self.head - self.recorded_head < MAX_SKIPPED as u64 {
            return None;
        }
        let skipped = self.take_skipped(low, &[]);
        Some(Settlement { skipped, head: self.recorded_head, ..Settlement::default() })
    }

    /// From here on a restart leases messages again.
    pub(crate) fn durable_head(&self) -> u64 {
        self.recorded_head
    }

    /// No message from here on was looked at.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The number of available messages, including messages that the label filter will skip.
    pub(crate) fn available(&self, stream: &Stream) -> u64 {
        self.ready.len() as u64 + (stream.next - self.head.clamp(stream.low, stream.next))
    }

    /// Whether a consume call would find something now.
    pub(crate) fn has_available(&self, stream: &Stream) -> bool {
        !self.is_blocked() && self.available(stream) > 0
    }

    /// Failed messages from a sequence number on, with their failures.
    pub(crate) fn ready_from(&self, from: u64) -> impl Iterator<Item = (u64, u32)> {
        self.ready.range(from..).map(|(seq, ready)| (*seq, ready.failures))
    }

    /// The number of failures of a message that is available again, and their history.
    pub(crate) fn failures_of(&self, seq: u64) -> Option<(u32, &FailureHistory)> {
        self.ready.get(&seq).map(|ready| (ready.failures, &ready.history))
    }

    /// Whether a message passes the label filter.
    pub(crate) fn passes(&self, message: &StoredMessage) -> bool {
        match message.only_for {
            // A dead letter has lost its labels, so the rule says nothing about it.
            Some(group) => self.number == Some(group),
            None => self.rule.as_ref().is_none_or(|rule| rule.passes(&message.tags)),
        }
    }

    /// Whether nothing may be leased until a batch ends. A batch of which every message was purged does not count: nothing that comes
    /// later has to wait for messages that no longer exist.
    fn is_blocked(&self) -> bool {
        // Entries are in the order of their sequence numbers.
        let is_alive = |lease: &Lease| lease.entries.last().is_some_and(|last| last.message.seq >= self.purged);
        self.exclusive && self.leases.values().any(is_alive)
    }

    /// Whether enough messages are prefetched for the batch that is being put together.
    fn has_enough_prefetched(&self) -> bool {
        !self.prefetched.is_below(ENOUGH_PREFETCHED)
    }

    fn advance_to(&mut self, head: u64) {
        self.head = head;
        self.prefetched.advance_to(head);
    }

    /// The messages skipped since the last lease and between these entries. The next settlement records them.
    fn take_skipped(&mut self, low: u64, entries: &[LeasedEntry]) -> Vec<Range<u64>> {
        let mut skipped = std::mem::take(&mut self.skipped);
        let mut at = self.recorded_head.max(low);
        let new = entries.iter().map(|entry| entry.message.seq).filter(|seq| *seq >= self.recorded_head);
        for seq in new.chain([self.head]) {
            skipped.extend(self.set_aside.gaps(at..seq));
            at = seq + 1;
        }
        self.recorded_head = self.head;
        skipped
    }

    fn read_ready(&self, from: u64) -> ReadRequest {
        let missing = self.ready.range(from..).filter(|(_, ready)| ready.message.is_none());
        ReadRequest::Sequences(missing.map(|(seq, _)| *seq).take(MAX_REREAD).collect())
    }

    fn keep(&mut self, message: Arc<StoredMessage>) {
        if let Some(ready) = self.ready.get_mut(&message.seq).filter(|ready| ready.message.is_none()) {
            self.ready_bytes += message.memory_bytes();
            // Failed messages stay when their neighbours are gone.
            ready.message = Some(message.alone());
        }
    }

    /// Remembers why a message failed and when it was leased. The reported cause and the attempts are left out if there is no memory
    /// for them.
    pub(crate) fn remember(&mut self, seq: u64, mut history: FailureHistory) {
        let Some(ready) = self.ready.get_mut(&seq) else { return };
        self.ready_bytes -= memory_bytes(&ready.history);
        if self.ready_bytes + memory_bytes(&history) > MAX_READY_BYTES {
            (history.last, history.attempts) = (None, None);
        }
        self.ready_bytes += memory_bytes(&history);
        ready.history = history;
    }

    fn remove_ready(&mut self, seq: u64) {
        self.take_ready(seq);
    }

    fn take_ready(&mut self, seq: u64) -> Option<Ready> {
        let ready = self.ready.remove(&seq)?;
        self.ready_bytes -= ready.memory_bytes();
        Some(ready)
    }
}

fn passes_too_many() -> BrokerError {
    BrokerError::NotAvailable("more than 10000 messages before the message were never consumed".into())
}

/// How the ready messages fitted into a batch.
enum Drafted {
    /// All are in it, and there may be room for more.
    Rest,
    /// There is no room for the next one.
    Full,
    /// The next one has to be read from the store first.
    Missing(ReadRequest),
}

#[cfg(test)]
mod tests;
