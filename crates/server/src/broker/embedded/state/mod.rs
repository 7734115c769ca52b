//! The broker's state in memory: queues and groups, the streams and readers behind them, what is due when. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::{
    broker::{
        BrokerError, GroupPath, ReasonCounts, RetentionPolicy, Stream as Which,
        embedded::{
            background::heartbeat::Pulse,
            config::{EmbeddedConfig, Keeping},
            state::{
                cursor::Reader,
                lease::{Ending, Entry, Lease},
                lease_budget::Shares,
                receipt::{BatchToken, Minted},
                stream::{Lot, Stream},
            },
        },
    },
    store::{GroupRow, GroupSnapshot, QueueRow, QueueSnapshot, ReaderNo, Snapshot, StreamNo},
};
use dms_protocol::queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag};

pub(crate) mod cursor;
pub(crate) mod label_filter;
pub(crate) mod lease;
pub(crate) mod lease_budget;
pub(crate) mod receipt;
pub(crate) mod set_aside;
pub(crate) mod stream;

/// Everything but messages.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The queues of all projects.
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    /// The queues' streams, and the groups' dead letters.
    pub(crate) streams: BTreeMap<StreamNo, Stream>,
    /// Each queue's messages that are not due.
    pub(crate) lots: BTreeMap<StreamNo, Lot>,
    /// Each group's position on its queue's stream and on its dead letters.
    pub(crate) readers: BTreeMap<ReaderNo, Reader>,
    /// Which batch a token names.
    pub(crate) tokens: HashMap<BatchToken, (ReaderNo, u64)>,
    /// When which batch lapses.
    pub(crate) deadlines: BTreeSet<(Instant, ReaderNo, u64)>,
    /// Messages handed out again since the broker was opened.
    pub(crate) redeliveries: u64,
    /// Messages that became dead letters since then.
    pub(crate) dead_letters: u64,
    /// The same by reason.
    pub(crate) dead_letter_reasons: ReasonCounts,
    /// The number of the next queue or group.
    pub(crate) next_number: u32,
    /// When the creation of which queue or group is over.
    pub(crate) creating: HashMap<u32, Instant>,
    /// What the batches that are out keep in memory.
    pub(crate) leased: Shares,
    /// The number of the next lease.
    pub(crate) next_lease: u64,
    /// When the timer looks next; `None` while it is at work and looks again anyway.
    pub(crate) timer_target: Option<Instant>,
    /// Something may be due before the timer looks.
    pub(crate) timer_stale: bool,
    /// When the process was last seen running.
    pub(crate) pulse: Pulse,
    /// No new work is taken.
    pub(crate) closed: bool,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    /// What does not change.
    pub(crate) row: QueueRow,
    /// In the order they were set.
    pub(crate) tags: Vec<QueueTag>,
    /// What was said about how long it keeps messages, while the server ran.
    pub(crate) retention: RetentionPolicy,
    /// In the order of their creation.
    pub(crate) groups: Vec<GroupRow>,
}

impl State {
    /// The state of what a store held.
    pub(crate) fn restore(snapshot: Snapshot, config: &EmbeddedConfig) -> Self {
        let mut state = Self { next_number: snapshot.next_number, ..Self::default() };
        for QueueSnapshot { row, tags, retention, stream, lot } in snapshot.queues {
            state.streams.insert(row.stream(), Stream::new(stream, config.keeping_of(&row, retention)));
            state.lots.insert(row.lot(), Lot::new(row.stream(), lot));
            state.queues.insert(row.id.clone(), QueueState { row, tags, retention, groups: Vec::new() });
        }
        for GroupSnapshot { row, reader, dead_letters, dead_letter_reader } in snapshot.groups {
            let Some(queue) = state.queues.get(&row.queue) else { continue };
            let reader = Reader::new(queue.row.stream(), reader);
            let dead_letter_reader = Reader::new(row.dead_letters(), dead_letter_reader);
            let dead_letters = Stream::new(dead_letters, Keeping::for_time(config.dead_letter_retention));
            state.streams.insert(row.dead_letters(), dead_letters);
            state.add_group(row, reader, dead_letter_reader, config);
        }
        for stream in state.streams.keys().copied().collect::<Vec<_>>() {
            state.look_for_settled(stream);
        }
        state
    }

    /// Keeps what a wrong wall clock has written from lasting: whatever a store says entered later than `now_ms`, when it is opened,
    /// counts as having entered then.
    pub(crate) fn bound_stamps(&mut self, now_ms: i64) {
        self.streams.values_mut().for_each(|stream| stream.bound_stamps(now_ms));
    }

    /// Puts a group into its queue, its readers set up as the queue says.
    pub(crate) fn add_group(&mut self, row: GroupRow, mut messages: Reader, mut dead: Reader, config: &EmbeddedConfig) {
        let Some(queue) = self.queues.get_mut(&row.queue) else { return };
        let exclusive = config.fifo_blocks && queue.row.mode == QueueMode::Fifo;
        messages.exclusive = exclusive;
        dead.exclusive = exclusive;
        messages.dead = queue.row.max_consume_count.map(|count| (row.dead_letters(), count));
        for (number, reader) in [(row.reader(), messages), (row.dead_letter_reader(), dead)] {
            if let Some(stream) = self.streams.get_mut(&reader.stream) {
                stream.readers.push(number);
            }
            self.readers.insert(number, reader);
        }
        queue.groups.push(row);
    }

    /// A queue of a project.
    ///
    /// # Errors
    /// When there is none, or it is being created.
    pub(crate) fn queue(&self, project: &ProjectId, queue: &QueueId, at: &At) -> Result<&QueueState, BrokerError> {
        let queue = self.queues.get(queue).filter(|queue| queue.row.project == *project);
        let queue = queue.ok_or(BrokerError::QueueNotFound)?;
        self.is_created(queue.row.number, at)?;
        Ok(queue)
    }

    /// # Errors
    /// When the queue or group with this number is still being created. That is known of those that this process has created.
    fn is_created(&self, number: u32, At(now): &At) -> Result<(), BrokerError> {
        if self.creating.get(&number).is_some_and(|ready| now < ready) {
            Err(BrokerError::BeingCreated)
        } else {
            Ok(())
        }
    }

    /// The queue, group and reader that a path names.
    ///
    /// # Errors
    /// When there is none, it is being created, or the queue has no dead letters.
    pub(crate) fn reader_of(
        &self,
        path: &GroupPath,
        which: Which,
        at: &At,
    ) -> Result<(&QueueState, ReaderNo), BrokerError> {
        let queue = self.queue(&path.project, &path.queue, at)?;
        let group = queue.group(&path.group)?;
        self.is_created(group.number, at)?;
        match which {
            Which::Messages => Ok((queue, group.reader())),
            Which::DeadLetters if queue.row.max_consume_count.is_none() => Err(BrokerError::NoDeadLetters),
            Which::DeadLetters => Ok((queue, group.dead_letter_reader())),
        }
    }

    /// Hands out a batch until `deadline`.
    pub(crate) fn lease(
        &mut self,
        (project, reader): (&ProjectId, ReaderNo),
        minted: &Minted,
        entries: Vec<Entry>,
        skipped: Vec<std::ops::Range<u64>>,
        deadline: Instant,
    ) -> Option<&Lease> {
        let leases = &mut self.readers.get_mut(&reader)?.leases;
        let number = self.next_lease;
        self.next_lease += 1;
        let seals = minted.seals().take(entries.len()).collect();
        let project = project.clone();
        let lease = Lease { project, token: minted.batch, seals, entries, skipped, deadline, settling: false };
        self.leased.add(&lease.project, reader, lease.footprint());
        self.tokens.insert(minted.batch, (reader, number));
        self.deadlines.insert((deadline, reader, number));
        Some(leases.entry(number).or_insert(lease))
    }

    /// Marks every lease that is not ending as settling, to be released.
    pub(crate) fn take_open(&mut self) -> Vec<(ReaderNo, u64, Ending)> {
        let mut open = Vec::new();
        for (reader, leases) in self.readers.iter_mut().map(|(number, reader)| (*number, &mut reader.leases)) {
            for (number, lease) in leases.iter_mut().filter(|(_, lease)| !lease.settling) {
                lease.settling = true;
                open.push((reader, *number, Ending::Released));
            }
        }
        open
    }

    /// A lease is no more: neither its token nor its deadline means anything.
    pub(crate) fn forget_lease(&mut self, reader: ReaderNo, number: u64, lease: &Lease) {
        self.leased.remove(&lease.project, reader, lease.footprint());
        self.tokens.remove(&lease.token);
        self.deadlines.remove(&(lease.deadline, reader, number));
    }

    /// Removes a reader with its leases and wakes those who wait for it.
    pub(crate) fn drop_reader(&mut self, reader: ReaderNo) {
        let Some(gone) = self.readers.remove(&reader) else { return };
        if let Some(stream) = self.streams.get_mut(&gone.stream) {
            stream.readers.retain(|other| *other != reader);
        }
        for (number, lease) in &gone.leases {
            self.forget_lease(reader, *number, lease);
        }
        gone.wake.notify_waiters();
        gone.read_done.notify_waiters();
        // It may have been the one that the others waited for.
        self.look_for_settled(gone.stream);
    }
}

impl QueueState {
    /// A group of the queue.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn group(&self, group: &GroupId) -> Result<&GroupRow, BrokerError> {
        self.groups.iter().find(|row| row.id == *group).ok_or(BrokerError::GroupNotFound)
    }
}

/// The time of a call, by the clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) Instant);
