//! The broker's state in memory: queues and groups, the streams and readers behind them, what is due when. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    broker::{
        AlreadyLogged, BrokerError, GroupPath, ReasonCounts, RetentionPolicy, Stream as Which,
        embedded::{
            config::{EffectiveRetention, EmbeddedConfig},
            state::{
                cursor::Cursor, delay_queue::DelayQueue, lease_budget::LeaseBudget, pause::PauseDetector,
                receipt::LeaseToken, stream::Stream,
            },
        },
    },
    store::{CursorId, GroupRow, GroupSnapshot, QueueRow, QueueSnapshot, Snapshot, StreamId},
};
use dms_protocol::queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag};

pub(crate) mod alarms;
pub(crate) mod cursor;
pub(crate) mod delay_queue;
pub(crate) mod label_filter;
pub(crate) mod lease;
pub(crate) mod lease_budget;
pub(crate) mod leases;
pub(crate) mod pause;
pub(crate) mod receipt;
mod retention;
pub(crate) mod set_aside;
pub(crate) mod stream;

/// Everything but messages.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The queues of all projects.
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    /// The queues' streams, and the groups' dead letters.
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// Each queue's messages that are not due.
    pub(crate) delay_queues: BTreeMap<StreamId, DelayQueue>,
    /// Each group's position on its queue's stream and on its dead letters.
    pub(crate) cursors: BTreeMap<CursorId, Cursor>,
    /// Which batch a token names.
    pub(crate) tokens: HashMap<LeaseToken, (CursorId, u64)>,
    /// When which batch lapses.
    pub(crate) deadlines: BTreeSet<(Instant, CursorId, u64)>,
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
    pub(crate) leased: LeaseBudget,
    /// The number of the next lease.
    pub(crate) next_lease: u64,
    /// When the timer looks next; `None` while it is at work and looks again anyway.
    pub(crate) timer_target: Option<Instant>,
    /// Something may be due before the timer looks.
    pub(crate) timer_is_stale: bool,
    /// When the process was last seen running.
    pub(crate) pauses: PauseDetector,
    /// The broker is closed: new calls are refused.
    pub(crate) closed: bool,
    /// The store no longer belongs to this process, and why: every call is refused.
    pub(crate) lost: Option<Arc<AlreadyLogged>>,
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
        for QueueSnapshot { row, tags, retention, stream, delay_queue } in snapshot.queues {
            state.streams.insert(row.stream(), Stream::new(stream, config.retention_of(&row, retention)));
            state.delay_queues.insert(row.delay_queue(), DelayQueue::new(row.stream(), delay_queue));
            state.queues.insert(row.id.clone(), QueueState { row, tags, retention, groups: Vec::new() });
        }
        for GroupSnapshot { row, cursor, dead_letters, dead_letter_cursor } in snapshot.groups {
            let Some(queue) = state.queues.get(&row.queue) else { continue };
            let cursor = Cursor::new(queue.row.stream(), cursor);
            let dead_letter_cursor = Cursor::new(row.dead_letters(), dead_letter_cursor);
            let dead_letters = Stream::new(dead_letters, EffectiveRetention::for_time(config.dead_letter_retention));
            state.streams.insert(row.dead_letters(), dead_letters);
            state.add_group(row, cursor, dead_letter_cursor, config);
        }
        for stream in state.streams.keys().copied().collect::<Vec<_>>() {
            state.schedule_settled_check(stream);
        }
        state
    }

    /// Keeps what a wrong wall clock has written from lasting: whatever a store says entered later than `now_ms`, when it is opened,
    /// counts as having entered then.
    pub(crate) fn bound_entry_times(&mut self, now_ms: i64) {
        self.streams.values_mut().for_each(|stream| stream.bound_entry_times(now_ms));
    }

    /// Puts a group into its queue, its readers set up as the queue says.
    pub(crate) fn add_group(&mut self, row: GroupRow, mut messages: Cursor, mut dead: Cursor, config: &EmbeddedConfig) {
        let Some(queue) = self.queues.get_mut(&row.queue) else { return };
        let exclusive = config.fifo_blocks && queue.row.mode == QueueMode::Fifo;
        messages.exclusive = exclusive;
        dead.exclusive = exclusive;
        messages.dead = queue.row.max_consume_count.map(|count| (row.dead_letters(), count));
        for (number, cursor) in [(row.cursor(), messages), (row.dead_letter_cursor(), dead)] {
            if let Some(stream) = self.streams.get_mut(&cursor.stream) {
                stream.cursors.push(number);
            }
            self.cursors.insert(number, cursor);
        }
        queue.groups.push(row);
    }

    /// # Errors
    /// When the broker is closed, or its store is lost.
    pub(crate) fn check_open(&self) -> Result<(), BrokerError> {
        match &self.lost {
            _ if self.closed => Err(BrokerError::Closed),
            Some(lost) => Err(BrokerError::Store(lost.clone())),
            None => Ok(()),
        }
    }

    /// Wakes every waiting consume call: the broker is closed, or its store is lost.
    pub(crate) fn wake_all(&self) {
        for cursor in self.cursors.values() {
            cursor.wake.notify_waiters();
            cursor.read_done.notify_waiters();
        }
    }

    /// A queue of a project.
    ///
    /// # Errors
    /// When there is none, or it is being created.
    pub(crate) fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<&QueueState, BrokerError> {
        let queue = self.queues.get(queue).filter(|queue| queue.row.project == *project);
        let queue = queue.ok_or(BrokerError::QueueNotFound)?;
        self.check_created(queue.row.number)?;
        Ok(queue)
    }

    /// # Errors
    /// When the queue or group with this number is still being created. That is known of those that this process has created.
    fn check_created(&self, number: u32) -> Result<(), BrokerError> {
        if self.creating.get(&number).is_some_and(|ready| Instant::now() < *ready) {
            Err(BrokerError::BeingCreated)
        } else {
            Ok(())
        }
    }

    /// The queue, group and reader that a path names.
    ///
    /// # Errors
    /// When there is none, it is being created, or the queue has no dead letters.
    pub(crate) fn cursor_of(&self, path: &GroupPath, which: Which) -> Result<(&QueueState, CursorId), BrokerError> {
        let queue = self.queue(&path.project, &path.queue)?;
        let group = queue.group(&path.group)?;
        self.check_created(group.number)?;
        match which {
            Which::Messages => Ok((queue, group.cursor())),
            Which::DeadLetters if queue.row.max_consume_count.is_none() => Err(BrokerError::NoDeadLetters),
            Which::DeadLetters => Ok((queue, group.dead_letter_cursor())),
        }
    }

    /// Removes a reader with its leases and wakes those who wait for it.
    pub(crate) fn drop_cursor(&mut self, cursor: CursorId) {
        let Some(gone) = self.cursors.remove(&cursor) else { return };
        if let Some(stream) = self.streams.get_mut(&gone.stream) {
            stream.cursors.retain(|other| *other != cursor);
        }
        for (number, lease) in &gone.leases {
            self.remove_lease(cursor, *number, lease);
        }
        gone.wake.notify_waiters();
        gone.read_done.notify_waiters();
        // It may have been the one that the others waited for.
        self.schedule_settled_check(gone.stream);
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
