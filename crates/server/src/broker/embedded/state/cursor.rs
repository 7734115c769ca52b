//! A group's position on a stream: what was never handed out, what failed and is available again, what is out. Pure.
//!
//! Memory is bounded by what is out or failed, never by the backlog: everything below `head` that is neither ready nor
//! leased is settled.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    broker::embedded::state::{
        label_filter::LabelRule,
        lease::{Entry, Lease},
        set_aside::Aside,
        stream::Stream,
    },
    store::{Found, History, ReadLimit, ReaderMark, Settlement, StoreError, Stored, StreamNo},
};

/// How much a reader asks the store for at once, and keeps ahead.
pub(crate) const READ_AHEAD: ReadLimit = ReadLimit { messages: 256, bytes: 256 * 1024 };
/// How many failed messages one read looks up.
const READ_AGAIN: usize = 64;
/// How many bytes of failed messages a reader keeps in memory.
const READY_BYTES: usize = 256 * 1024;
/// How many messages the label rule may pass over in one go.
const SCAN: usize = 1_024;

/// A reader.
#[derive(Debug)]
pub(crate) struct Reader {
    /// What it reads.
    pub(crate) stream: StreamNo,
    /// Where messages go that failed this often.
    pub(crate) dead: Option<(StreamNo, u32)>,
    /// Nothing is handed out while a batch is out.
    pub(crate) exclusive: bool,
    /// Which messages are for the group; fixed by its first consume, none before.
    pub(crate) rule: Option<LabelRule>,
    /// Messages acknowledged so far.
    pub(crate) consumed: u64,
    /// The batches that are out, by their numbers.
    pub(crate) leases: BTreeMap<u64, Lease>,
    /// Wakes one waiting call when something may be there to consume.
    pub(crate) wake: Arc<Notify>,
    /// Wakes the calls that wait for a read of the store.
    pub(crate) read_done: Arc<Notify>,
    /// Whether a read of the store is under way.
    pub(crate) reading: bool,
    /// Why the last read failed: for the next call that looks.
    pub(crate) read_error: Option<StoreError>,
    /// Calls that wait.
    pub(crate) polls: usize,
    /// Damaged messages: nobody is given them, and they are not settled.
    pub(crate) aside: Aside,
    /// Messages below this place were purged: those that are leased are not given out again.
    pub(crate) purged: u64,
    /// How many messages were deleted by retention before they were consumed, since the broker was opened.
    pub(crate) expired_unread: u64,
    /// Nothing from here on was looked at.
    head: u64,
    /// Every message passed over below this belongs to a lease or was recorded.
    attributed: u64,
    /// Passed over among the ready ones, to be recorded with the next lease.
    passed_over: Vec<Range<u64>>,
    /// Messages below `head` that can be consumed again.
    ready: BTreeMap<u64, Ready>,
    /// What of them is kept in memory.
    ready_bytes: usize,
    /// What was known of messages that are set aside: it counts again when they can be read.
    of_aside: BTreeMap<u64, Ready>,
    /// Messages from the store, from `head` on without gaps but for damaged ones.
    ahead: VecDeque<Arc<Stored>>,
}

/// A message that failed, or was out when the broker stopped.
#[derive(Debug)]
struct Ready {
    /// Failed consumptions so far.
    failures: u32,
    /// What is remembered of them.
    history: History,
    /// The message, where it is kept in memory.
    message: Option<Arc<Stored>>,
}

impl Ready {
    fn new(failures: u32) -> Self {
        Self { failures, history: History::default(), message: None }
    }

    fn footprint(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.footprint()) + footprint(&self.history)
    }
}

/// What was said of a failure, in bytes.
fn footprint(history: &History) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    history.last.as_ref().map_or(0, |cause| 160 + length(&cause.error) + length(&cause.worker) + length(&cause.reason))
}

/// How much a consume call wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// At most so many.
    pub(crate) messages: usize,
    /// At most so many bytes of bodies, the first message whatever its size.
    pub(crate) bytes: usize,
}

/// What a consume call finds.
#[derive(Debug)]
pub(crate) enum Take {
    /// These are to be leased, with what was passed over on the way to them.
    Batch(Vec<Entry>, Vec<Range<u64>>),
    /// The store has to be read first.
    Missing(Read),
    /// Much was passed over: give others a turn, then look again.
    More,
    /// Nothing now.
    Nothing,
}

/// What to read from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// From this place on; the stream ends before `end`.
    From { place: u64, end: u64 },
    /// These.
    These(Vec<u64>),
}

/// A batch in the making.
struct Draft {
    want: Want,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Draft {
    /// Takes a message if there is room; the first has room whatever its size.
    fn push(&mut self, message: &Arc<Stored>, failures: u32, history: &History) -> bool {
        let bytes = self.bytes + message.body_bytes;
        if self.is_full() || !self.entries.is_empty() && bytes > self.want.bytes {
            return false;
        }
        self.bytes = bytes;
        self.entries.push(Entry { message: message.clone(), failures, history: history.clone() });
        true
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.want.messages
    }
}

impl Reader {
    /// A reader as a store has it.
    pub(crate) fn new(stream: StreamNo, mark: ReaderMark) -> Self {
        let ready = mark.ready.into_iter().map(|(seq, failures)| (seq, Ready::new(failures))).collect();
        Self {
            stream,
            dead: None,
            exclusive: false,
            rule: mark.rule.as_ref().map(LabelRule::new),
            consumed: mark.consumed,
            leases: BTreeMap::new(),
            wake: Arc::new(Notify::new()),
            read_done: Arc::new(Notify::new()),
            reading: false,
            read_error: None,
            polls: 0,
            purged: 0,
            expired_unread: 0,
            head: mark.head,
            attributed: mark.head,
            passed_over: Vec::new(),
            ready,
            ready_bytes: 0,
            aside: Aside::default(),
            of_aside: BTreeMap::new(),
            ahead: VecDeque::new(),
        }
    }

    /// Finds the next messages: those that failed first, then new ones, each in the order of the stream.
    pub(crate) fn take(&mut self, stream: &Stream, want: Want) -> Take {
        if self.is_blocked() {
            return Take::Nothing;
        }
        self.move_to(self.head.max(stream.low));
        let mut draft = Draft { want, bytes: 0, entries: Vec::new() };
        match self.draft_ready(&mut draft) {
            Drafted::Missing(read) => return Take::Missing(read),
            Drafted::Full => {}
            Drafted::Rest => match self.draft_new(stream, &mut draft) {
                Ok(head) => self.move_to(head),
                Err(otherwise) => return otherwise,
            },
        }
        if draft.entries.is_empty() {
            return Take::Nothing;
        }
        for entry in &draft.entries {
            self.forget_ready(entry.message.seq);
        }
        let skipped = self.attribute(stream.low, &draft.entries);
        Take::Batch(draft.entries, skipped)
    }

    fn draft_ready(&mut self, draft: &mut Draft) -> Drafted {
        let mut drafted = Drafted::Rest;
        let mut passed_over = Vec::new();
        for (&seq, ready) in &self.ready {
            let Some(message) = &ready.message else {
                drafted = Drafted::Missing(self.read_ready(seq));
                break;
            };
            if !self.passes(message) {
                passed_over.push(seq);
            } else if !draft.push(message, ready.failures, &ready.history) {
                drafted = Drafted::Full;
                break;
            }
        }
        for seq in passed_over {
            self.forget_ready(seq);
            self.passed_over.push(seq..seq + 1);
        }
        drafted
    }

    /// Drafts messages that were never handed out; gives where `head` stands after them.
    fn draft_new(&mut self, stream: &Stream, draft: &mut Draft) -> Result<u64, Take> {
        let mut at = self.head;
        let mut passed_over = 0;
        while at < stream.next && !draft.is_full() {
            if self.aside.contains(at) {
                at += 1;
                continue;
            }
            let Some(message) = stream.cached(at).or_else(|| self.ahead(at)) else {
                if draft.entries.is_empty() {
                    self.move_to(at);
                } else if self.has_far_ahead() {
                    // The next match of a label rule may be far away: what is there is enough.
                    break;
                }
                return Err(Take::Missing(Read::From { place: at, end: stream.next }));
            };
            if self.passes(message) {
                if !draft.push(message, 0, &History::default()) {
                    break;
                }
            } else {
                passed_over += 1;
            }
            at += 1;
            if passed_over == SCAN {
                if draft.entries.is_empty() {
                    self.move_to(at);
                    return Err(Take::More);
                }
                break;
            }
        }
        Ok(at)
    }

    /// What to read before it is asked for: a consumer that works off a backlog should not wait for every read.
    pub(crate) fn read_ahead(&self, stream: &Stream) -> Option<Read> {
        let place = self.aside.first_not_in(self.ahead.back()?.seq + 1);
        let low = self.ahead.len() < READ_AHEAD.messages / 4 && !self.reading;
        let there = place < stream.next && stream.cached(place).is_none();
        (low && there).then_some(Read::From { place, end: stream.next })
    }

    /// Messages came from the store. What it no longer has is passed over: retention took it meanwhile. What is damaged is set aside.
    pub(crate) fn fill(&mut self, read: &Read, found: Found) {
        let purged = self.purged;
        for damaged in found.damaged.into_iter().filter(|damaged| damaged.seq >= purged) {
            if let Some(ready) = self.take_ready(damaged.seq) {
                self.of_aside.insert(damaged.seq, Ready { message: None, ..ready });
            }
            self.aside.add(damaged);
        }
        match read {
            Read::From { place, end } => self.fill_ahead((*place, *end), found.messages, found.until),
            Read::These(seqs) => {
                found.messages.into_iter().for_each(|message| self.keep(message));
                for seq in seqs.iter().filter(|seq| **seq < found.until) {
                    if self.ready.get(seq).is_some_and(|ready| ready.message.is_none()) {
                        self.forget_ready(*seq);
                    }
                }
            }
        }
    }

    fn fill_ahead(&mut self, (place, end): (u64, u64), messages: Vec<Arc<Stored>>, until: u64) {
        if self.head == place {
            self.move_to(messages.first().map_or(end.min(until), |message| message.seq));
        }
        let mut next = self.ahead.back().map_or(self.head, |last| last.seq + 1);
        for message in messages {
            if message.seq < next {
                continue;
            }
            next = self.aside.first_not_in(next);
            if message.seq != next {
                return;
            }
            self.ahead.push_back(message);
            next += 1;
        }
    }

    /// A lease has ended like this.
    pub(crate) fn settle(&mut self, lease: Option<u64>, settlement: &Settlement, low: u64) -> Option<Lease> {
        let ended = lease.and_then(|number| self.leases.remove(&number));
        self.consumed += settlement.done.len() as u64;
        for &(seq, failures) in settlement.failed.iter().filter(|(seq, _)| *seq >= low) {
            self.ready.insert(seq, Ready::new(failures));
        }
        self.aside.remove(&settlement.skipped);
        if self.aside.iter().next().is_none() {
            self.of_aside.clear();
        }
        for entry in ended.iter().flat_map(|lease| &lease.entries) {
            if entry.failures > 0 {
                self.remember(entry.message.seq, entry.history.clone());
            }
            if self.ready_bytes + entry.message.footprint() <= READY_BYTES {
                self.keep(entry.message.clone());
            }
        }
        ended
    }

    /// Messages that the disk did not give back are looked for again; whether there are any.
    pub(crate) fn look_again_for_unreadable(&mut self) -> bool {
        let unreadable = self.aside.take_unreadable();
        for one in &unreadable {
            // What nothing was recorded of yet is new still: it would be recorded as passed over.
            if one.seq < self.attributed {
                let ready = self.of_aside.remove(&one.seq).unwrap_or_else(|| Ready::new(0));
                self.ready_bytes += ready.footprint();
                self.ready.insert(one.seq, ready);
            } else {
                self.head = self.head.min(one.seq);
            }
        }
        // What was read ahead has gaps where they were.
        self.ahead.clear();
        !unreadable.is_empty()
    }

    /// Messages below `low` are gone.
    pub(crate) fn expire(&mut self, low: u64) {
        while let Some((&seq, _)) = self.ready.first_key_value().filter(|(seq, _)| **seq < low) {
            self.forget_ready(seq);
        }
        self.aside.expire(low);
        self.of_aside = self.of_aside.split_off(&low);
        self.move_to(self.head.max(low));
    }

    /// Everything below a place is settled, whatever becomes of its leases.
    pub(crate) fn purge(&mut self, below: u64) {
        self.expire(below);
        self.passed_over.clear();
        self.attributed = self.attributed.max(below);
        self.purged = below;
    }

    /// The first message that is not settled: it may be leased, set aside, or not looked at.
    pub(crate) fn settled_below(&self) -> u64 {
        let leased = self.leases.values().flat_map(|lease| &lease.entries).map(|entry| entry.message.seq);
        let ready = self.ready.first_key_value().map(|(seq, _)| *seq);
        let aside = self.aside.iter().next().map(|damaged| damaged.seq);
        leased.filter(|seq| *seq >= self.purged).chain(ready).chain(aside).chain([self.head]).min().unwrap_or(self.head)
    }

    /// What was passed over since the last lease, where it has become much: to be recorded for itself.
    pub(crate) fn overdue_skips(&mut self, low: u64) -> Option<Settlement> {
        if self.head - self.attributed < SCAN as u64 {
            return None;
        }
        let skipped = self.attribute(low, &[]);
        Some(Settlement { skipped, head: self.attributed, ..Settlement::default() })
    }

    /// The place from which a restart has to hand out anew.
    pub(crate) fn durable_head(&self) -> u64 {
        self.attributed
    }

    /// Nothing from here on was looked at.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// How many messages could be consumed now; those the label rule will pass over are among them.
    pub(crate) fn available(&self, stream: &Stream) -> u64 {
        self.ready.len() as u64 + (stream.next - self.head.clamp(stream.low, stream.next))
    }

    /// Whether a consume call would find something now.
    pub(crate) fn has_available(&self, stream: &Stream) -> bool {
        !self.is_blocked() && self.available(stream) > 0
    }

    /// Messages that failed, with their failures, from a place on.
    pub(crate) fn ready_from(&self, from: u64) -> impl Iterator<Item = (u64, u32)> {
        self.ready.range(from..).map(|(seq, ready)| (*seq, ready.failures))
    }

    /// Whether the label rule, if there is one, lets a message pass.
    pub(crate) fn passes(&self, message: &Stored) -> bool {
        self.rule.as_ref().is_none_or(|rule| rule.passes(&message.tags))
    }

    fn is_blocked(&self) -> bool {
        self.exclusive && !self.leases.is_empty()
    }

    fn ahead(&self, seq: u64) -> Option<&Arc<Stored>> {
        let at = self.ahead.binary_search_by_key(&seq, |message| message.seq).ok()?;
        self.ahead.get(at)
    }

    /// Whether a batch in the making keeps as much in memory as it may.
    fn has_far_ahead(&self) -> bool {
        let footprint = self.ahead.iter().map(|message| message.footprint()).sum::<usize>();
        self.ahead.len() > SCAN || footprint > 4 * READ_AHEAD.bytes
    }

    fn move_to(&mut self, head: u64) {
        self.head = head;
        while self.ahead.front().is_some_and(|message| message.seq < head) {
            self.ahead.pop_front();
        }
    }

    /// What was passed over since the last lease and between these messages: theirs to record.
    fn attribute(&mut self, low: u64, entries: &[Entry]) -> Vec<Range<u64>> {
        let mut skipped = std::mem::take(&mut self.passed_over);
        let mut at = self.attributed.max(low);
        let new = entries.iter().map(|entry| entry.message.seq).filter(|seq| *seq >= self.attributed);
        for seq in new.chain([self.head]) {
            skipped.extend(self.aside.gaps(at..seq));
            at = seq + 1;
        }
        self.attributed = self.head;
        skipped
    }

    fn read_ready(&self, from: u64) -> Read {
        let missing = self.ready.range(from..).filter(|(_, ready)| ready.message.is_none());
        Read::These(missing.map(|(seq, _)| *seq).take(READ_AGAIN).collect())
    }

    fn keep(&mut self, message: Arc<Stored>) {
        if let Some(ready) = self.ready.get_mut(&message.seq).filter(|ready| ready.message.is_none()) {
            self.ready_bytes += message.footprint();
            ready.message = Some(message);
        }
    }

    /// Remembers why a message failed; what was said is left out where there is no room for it.
    pub(crate) fn remember(&mut self, seq: u64, mut history: History) {
        let Some(ready) = self.ready.get_mut(&seq) else { return };
        self.ready_bytes -= footprint(&ready.history);
        if self.ready_bytes + footprint(&history) > READY_BYTES {
            history.last = None;
        }
        self.ready_bytes += footprint(&history);
        ready.history = history;
    }

    fn forget_ready(&mut self, seq: u64) {
        self.take_ready(seq);
    }

    fn take_ready(&mut self, seq: u64) -> Option<Ready> {
        let ready = self.ready.remove(&seq)?;
        self.ready_bytes -= ready.footprint();
        Some(ready)
    }
}

/// How far the ready messages went towards a batch.
enum Drafted {
    /// All are in it, and there may be room.
    Rest,
    /// There is no room for the next.
    Full,
    /// The next has to be read from the store first.
    Missing(Read),
}

#[cfg(test)]
mod tests;
