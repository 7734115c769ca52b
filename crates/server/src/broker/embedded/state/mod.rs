//! The broker's state in memory. Pure values: the store is the truth, and applying its records is what changes them.
//!
//! | file | contents |
//! |---|---|
//! | `stream` | the messages of a queue, or the dead letters of a group |
//! | `delay_queue` | the delayed messages of a queue |
//! | `cursor`, `prefetched` | the position of a group on a stream; messages that were read ahead for it |
//! | `lease`, `leases` | a leased batch and how it ends; all leases |
//! | `lease_budget` | the memory that leased messages may take |
//! | `receipt` | the tokens that acknowledge messages |
//! | `label_filter` | which messages a group consumes |
//! | `recent_keys` | deduplication keys |
//! | `schedules`, `due_ticks` | schedules, and which of their ticks are due |
//! | `set_aside` | damaged messages |
//! | `retention`, `alarms` | which messages are deleted, and when the next lease, delay or retention ends |
//! | `pause` | pauses of the process |
//! | `rates` | messages per second |

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
                cursor::Cursor, delay_queue::DelayQueue, lease_budget::LeaseBudget, pause::PauseDetector, rates::Rates,
                receipt::LeaseToken, recent_keys::RecentKeys, schedules::Schedules, stream::Stream,
            },
        },
    },
    store::{self, CursorId, GroupRow, GroupSnapshot, QueueRow, QueueSnapshot, Snapshot, StreamId},
};
use dms_protocol::queue::{GroupId, ProjectId, QueueId, QueueMode, QueueTag};

pub(crate) mod alarms;
pub(crate) mod cursor;
pub(crate) mod delay_queue;
pub(crate) mod due_ticks;
pub(crate) mod label_filter;
pub(crate) mod lease;
pub(crate) mod lease_budget;
pub(crate) mod leases;
pub(crate) mod pause;
mod prefetched;
pub(crate) mod rates;
pub(crate) mod receipt;
pub(crate) mod recent_keys;
mod retention;
pub(crate) mod schedules;
pub(crate) mod set_aside;
pub(crate) mod stream;

/// Everything the broker knows, except the messages in the store.
#[derive(Debug, Default)]
pub(crate) struct BrokerState {
    /// The options.
    pub(crate) config: Arc<EmbeddedConfig>,
    /// The queues of all projects.
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    /// The streams of queues, and the dead letters of groups.
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// The queue that each stream belongs to, also the dead letters of its groups.
    pub(crate) owners: BTreeMap<StreamId, QueueId>,
    /// The delay queue of each queue.
    pub(crate) delay_queues: BTreeMap<StreamId, DelayQueue>,
    /// The position of each group on its queue's stream and on its dead letters.
    pub(crate) cursors: BTreeMap<CursorId, Cursor>,
    /// The lease that a receipt belongs to.
    pub(crate) tokens: HashMap<LeaseToken, (CursorId, u64)>,
    /// The deadlines of all leases, the earliest first.
    pub(crate) deadlines: BTreeSet<(Instant, CursorId, u64)>,
    /// The number of messages that were leased again since the broker was opened.
    pub(crate) redeliveries: u64,
    /// The number of messages that became dead letters since then.
    pub(crate) dead_letters: u64,
    /// The same by reason.
    pub(crate) dead_letter_reasons: ReasonCounts,
    /// The number of the next queue or group.
    pub(crate) next_number: u32,
    /// When the creation of a queue or group is over, by its number.
    pub(crate) creating: HashMap<u32, Instant>,
    /// The memory that leased messages take.
    pub(crate) leased: LeaseBudget,
    /// The number of the next lease.
    pub(crate) next_lease: u64,
    /// When the timer looks next. `None` while it is at work, because it looks again anyway.
    pub(crate) timer_target: Option<Instant>,
    /// Whether something may be due before the timer looks.
    pub(crate) timer_is_stale: bool,
    /// Detects pauses of the process.
    pub(crate) pauses: PauseDetector,
    /// Messages per second of each queue and group.
    pub(crate) rates: Rates,
    /// The deduplication keys of sent messages.
    pub(crate) recent_keys: RecentKeys,
    /// The schedules of all queues.
    pub(crate) schedules: Schedules,
    /// The broker is closed: new calls are refused.
    pub(crate) closed: bool,
    /// The store no longer belongs to this process, and why: every call is refused.
    pub(crate) lost: Option<Arc<AlreadyLogged>>,
}

/// A queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    /// The properties. Only the description and `max_consume_count` change.
    pub(crate) row: QueueRow,
    /// The resource tags in the order they were set.
    pub(crate) tags: Vec<QueueTag>,
    /// The retention that was set while the server ran.
    pub(crate) retention: RetentionPolicy,
    /// The groups in the order of their creation.
    pub(crate) groups: Vec<GroupRow>,
}

impl BrokerState {
    /// Restores the state from a snapshot.
    pub(crate) fn restore(snapshot: Snapshot, config: EmbeddedConfig, now_ms: i64) -> Self {
        let config = Arc::new(config);
        let mut state = Self { next_number: snapshot.next_number, config: Arc::clone(&config), ..Self::default() };
        for QueueSnapshot { row, tags, retention, schedules, stream, delay_queue } in snapshot.queues {
            for schedule in schedules {
                state.schedules.set(&row.id, schedule.row, schedule.progress);
            }
            state.streams.insert(row.stream(), Stream::new(stream, config.retention_of(&row, retention)));
            state.delay_queues.insert(row.delay_queue(), DelayQueue::new(row.stream(), delay_queue));
            state.owners.insert(row.stream(), row.id.clone());
            state.queues.insert(row.id.clone(), QueueState { row, tags, retention, groups: Vec::new() });
        }
        for GroupSnapshot { row, cursor, dead_letters, dead_letter_cursor } in snapshot.groups {
            let Some(queue) = state.queues.get(&row.queue) else { continue };
            let cursor = Cursor::new(queue.row.stream(), cursor);
            let dead_letter_cursor = Cursor::new(row.dead_letters(), dead_letter_cursor);
            let dead_letters = Stream::new(dead_letters, EffectiveRetention::for_time(config.dead_letter_retention));
            state.streams.insert(row.dead_letters(), dead_letters);
            state.add_group(row, cursor, dead_letter_cursor, &config);
        }
        state.restore_keys(&snapshot.keys, now_ms);
        // The process may have ended between the last acknowledgement and the deletion of the settled messages.
        for stream in state.streams.keys().copied().collect::<Vec<_>>() {
            state.schedule_settled_check(stream);
        }
        state
    }

    /// Restores deduplication keys whose window has not ended, and whose queue exists.
    fn restore_keys(&mut self, keys: &[store::SentKeys], now_ms: i64) {
        for sent in keys.iter().flat_map(|keys| &keys.0).filter(|sent| sent.until_ms > now_ms) {
            self.keep_key(&RecentKeys::bounded(*sent, now_ms));
        }
    }

    /// Adds a deduplication key, if its queue exists.
    pub(crate) fn keep_key(&mut self, sent: &store::SentKey) {
        if let Some(queue) = self.owners.get(&sent.queue).and_then(|id| self.queues.get(id)) {
            self.recent_keys.add(&queue.row.project, sent);
        }
    }

    /// Keeps entry times of a wrong wall clock from lasting: a message that entered later than `now_ms` counts as having entered
    /// then.
    pub(crate) fn bound_entry_times(&mut self, now_ms: i64) {
        self.streams.values_mut().for_each(|stream| stream.bound_entry_times(now_ms));
    }

    /// Adds a group to its queue.
    pub(crate) fn add_group(&mut self, row: GroupRow, mut messages: Cursor, mut dead: Cursor, config: &EmbeddedConfig) {
        let Some(queue) = self.queues.get_mut(&row.queue) else { return };
        let exclusive = config.fifo_blocks && queue.row.mode == QueueMode::Fifo;
        messages.exclusive = exclusive;
        dead.exclusive = exclusive;
        messages.number = Some(row.cursor());
        messages.dead = queue.row.max_consume_count.map(|count| (row.dead_letters(), count));
        for (number, cursor) in [(row.cursor(), messages), (row.dead_letter_cursor(), dead)] {
            if let Some(stream) = self.streams.get_mut(&cursor.stream) {
                stream.cursors.push(number);
            }
            self.cursors.insert(number, cursor);
        }
        self.owners.insert(row.dead_letters(), row.queue.clone());
        queue.groups.push(row);
    }

    /// The queue that a stream belongs to.
    pub(crate) fn owner(&self, stream: StreamId) -> Option<&QueueState> {
        self.queues.get(self.owners.get(&stream)?)
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
    /// When it does not exist, or is being created.
    pub(crate) fn queue(&self, project: &ProjectId, queue: &QueueId) -> Result<&QueueState, BrokerError> {
        let queue = self.queues.get(queue).filter(|queue| queue.row.project == *project);
        let queue = queue.ok_or(BrokerError::QueueNotFound)?;
        self.check_created(queue.row.number)?;
        Ok(queue)
    }

    /// # Errors
    /// When the queue or group with this number is still being created. Only those created by this process count.
    fn check_created(&self, number: u32) -> Result<(), BrokerError> {
        if self.creating.get(&number).is_some_and(|ready| Instant::now() < *ready) {
            Err(BrokerError::BeingCreated)
        } else {
            Ok(())
        }
    }

    /// The queue and the cursor that a path names.
    ///
    /// # Errors
    /// When one of them does not exist or is being created, or the queue has no dead letters.
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

    /// Removes a cursor with its leases, and wakes the calls that wait for it.
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
        // It may have been the last cursor that had not settled some messages.
        self.schedule_settled_check(gone.stream);
    }
}

impl QueueState {
    /// A group of the queue.
    ///
    /// # Errors
    /// When it does not exist.
    pub(crate) fn group(&self, group: &GroupId) -> Result<&GroupRow, BrokerError> {
        self.groups.iter().find(|row| row.id == *group).ok_or(BrokerError::GroupNotFound)
    }
}
