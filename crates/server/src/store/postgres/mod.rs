//! The store in PostgreSQL: the queues are divided among shards, and one server at a time owns each of them.
//!
//! A commit is one statement: a row in an insert-only journal, and rows with messages in insert-only tables of six hours each. It is
//! answered when the synchronous standby has it. Nothing on this path is updated, so that it costs the same while a backup holds a
//! snapshot. Everything except messages is kept in memory, and written every few seconds so that a take-over
//! replays little.
//!
//! | file | contents |
//! |---|---|
//! | `config`, `connect`, `tls`, `runtime` | the connection string, connections, and the thread that drives them |
//! | `schema` | the tables and their versions |
//! | `member`, `cluster_view`, `duty` | beats, the watch over the owners, taking over, and for how long an owner may serve |
//! | `guard`, `spare_session` | a name that one server holds at a time, and the session that it takes |
//! | `jobs` | redrives of dashboards, and who works on them |
//! | `claim` | all shards at once, to export or import them |
//! | `shards` | which shard a queue belongs to |
//! | `commit` | the one statement of a commit, and deciding a commit whose answer is missing |
//! | `journal` | the bytes of a journal row |
//! | `slots` | which table a message is in |
//! | `images` | everything except messages, in memory |
//! | `open` | reading all of that after a take-over |
//! | `current` | whether a server has the latest commits, and reading from one that has |
//! | `read` | finding messages |
//! | `maintenance` | writing images, and making and dropping tables |

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) use self::config::PeerUrl;
use self::{
    commit::Batch,
    connect::Link,
    current::Proof,
    duty::{Duty, Moment},
    images::Images,
    journal::Change,
    maintenance::Written,
    member::Member,
    runtime::Runtime,
    slots::{Slot, Slots},
};
pub use self::{config::PostgresConfig, error::PostgresError};
use crate::{
    histogram::Histogram,
    store::{LeaseSnapshot, ReadBatch, ReadLimit, Record, Snapshot, Store, StoreError, StreamId},
};
use dms_protocol::queue::QueueId;

#[cfg(feature = "disk")]
pub(crate) mod claim;
pub(crate) mod cluster_view;
mod commit;
mod config;
mod connect;
mod current;
pub(crate) mod duty;
mod error;
pub(crate) mod guard;
mod images;
pub(crate) mod jobs;
mod journal;
mod maintenance;
pub(crate) mod member;
mod open;
mod read;
pub(crate) mod runtime;
mod schema;
pub(crate) mod shards;
mod slots;
mod spare_session;
#[cfg(test)]
mod tests;

/// After how many nanoseconds without an answer to a commit new work is refused.
const HANGS_AFTER: u64 = 2_000_000_000;

/// The records of a shard in PostgreSQL, while this server owns it.
#[derive(Debug)]
pub(crate) struct PgStore {
    member: Arc<Member>,
    duty: Arc<Duty>,
    /// The number of the schema, with which the checksums of its rows begin.
    log: u32,
    /// Whether the registration is for this shard only: it ends when the shard is lost.
    is_alone: bool,
    /// Connections for commits, for reads, and for maintenance, so that none waits for another.
    commits: Link,
    reads: Link,
    upkeep: Link,
    /// How long one try of a commit may take.
    try_timeout: Duration,
    /// Since when the commit that is under way waits, by the clock of [`Moment`]; zero without one.
    waits_since: AtomicU64,
    /// The number of the last commit. Held while a commit is under way.
    last_commit: Mutex<u64>,
    /// Taken after `last_commit` where both are held, and never held while PostgreSQL is asked.
    state: Mutex<ShardState>,
    /// Whether a table may have no messages left, so that maintenance looks for one to drop.
    has_unused: AtomicBool,
    /// Whether the store was released: all calls are refused.
    released: AtomicBool,
    /// Apart from the rest: looking at it waits for no commit.
    commit_times: Mutex<Histogram>,
}

/// The state of a shard in memory, as of the last commit.
#[derive(Debug)]
struct ShardState {
    images: Images,
    slots: Slots,
    written: Written,
}

impl PgStore {
    /// Opens the shard that this server has just taken.
    ///
    /// # Errors
    /// When another server has taken them meanwhile, they are damaged, or PostgreSQL fails.
    pub(crate) async fn open(member: &Arc<Member>, duty: &Arc<Duty>) -> Result<(Self, Snapshot), PostgresError> {
        let (asked, taken) = (Arc::clone(member), Arc::clone(duty));
        let opened = member.runtime.run_apart(async move {
            // A separate connection, because closing it ends the transaction after an error.
            let session = asked.connector.connect().await?;
            open::open(&session, asked.tables.log, &taken, &asked.connector.schema).await
        });
        let opened = opened.await?;
        let link = || Link::new(member.connector.clone());
        let commit_no = opened.images.commit_no;
        let store = Self {
            member: Arc::clone(member),
            duty: Arc::clone(duty),
            log: member.tables.log,
            is_alone: false,
            commits: link(),
            reads: link(),
            upkeep: link(),
            try_timeout: commit::TRY_TIMEOUT,
            waits_since: AtomicU64::new(0),
            last_commit: Mutex::new(commit_no),
            state: Mutex::new(ShardState { images: opened.images, slots: opened.slots, written: Written::new(0) }),
            // Tables may have become empty under the previous owner.
            has_unused: AtomicBool::new(true),
            released: AtomicBool::new(false),
            commit_times: Mutex::default(),
        };
        Ok((store, opened.snapshot))
    }

    /// Joins the servers on tables with a single shard, waits until this one owns it, and opens it.
    ///
    /// # Errors
    /// When PostgreSQL cannot be reached or used, or the messages are damaged.
    pub(crate) async fn wait(config: &PostgresConfig) -> Result<(Self, Snapshot), PostgresError> {
        let config = PostgresConfig { shards: Some(1), ..config.clone() };
        config.check()?;
        let runtime = Arc::new(Runtime::start()?);
        let member = Member::join(&config, runtime).await?;
        let duty = member.own().await?.ok_or(PostgresError::NotOwner)?;
        let (store, snapshot) = Self::open(&member, &duty).await?;
        Ok((Self { is_alone: true, ..store }, snapshot))
    }

    #[cfg(feature = "disk")]
    pub(crate) fn duty(&self) -> &Duty {
        &self.duty
    }

    fn shard(&self) -> i32 {
        self.duty.shard
    }

    fn runtime(&self) -> &Runtime {
        &self.member.runtime
    }

    fn schema(&self) -> &str {
        &self.member.connector.schema
    }

    fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_commit(&self) -> MutexGuard<'_, u64> {
        self.last_commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a commit has waited for more than `HANGS_AFTER`. Further work is refused then, because it could only queue up.
    fn hangs(&self) -> bool {
        let since = self.waits_since.load(Ordering::Relaxed);
        since != 0 && Moment::now().nanos().saturating_sub(since) > HANGS_AFTER
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Refuses calls once the store was released, or another server may own the shard.
    fn check_open(&self) -> Result<(), StoreError> {
        match (self.is_released(), self.duty.is_lost()) {
            (true, _) => Err(released()),
            (_, true) => Err(StoreError::lost(PostgresError::NotOwner)),
            _ => Ok(()),
        }
    }

    /// How many commits had to be repeated, because it was not known whether they took effect.
    #[cfg(test)]
    fn unsure(&self) -> u64 {
        self.member.counts.unsure_commits.load(Ordering::Relaxed)
    }

    fn count_unsure(&self) {
        self.member.counts.unsure_commits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a stream is a delay queue, whose messages are in a table of another kind.
    fn is_delay_queue(&self, stream: StreamId) -> bool {
        // The delay queue of a queue has the number after the queue's.
        self.lock().images.queues.contains_key(&stream.0.wrapping_sub(1))
    }

    /// The delay queue that goes with a record.
    fn delay_queue_of(&self, record: &Record) -> Option<StreamId> {
        let Record::QueueDeleted(queue) = record else { return None };
        self.lock().images.number_of(queue).map(|number| StreamId(number + 1))
    }

    /// Applies a commit that took effect to the state in memory.
    fn committed(&self, batch: &Batch<'_>, slot: Slot, took: Duration) {
        // Under one lock, so that reads and images see all of the commit or nothing.
        let mut state = self.lock();
        let ShardState { images, slots, .. } = &mut *state;
        for change in &batch.changes {
            images.apply(change);
            match change {
                Change::Appended(appended) if images.streams.contains_key(&appended.stream) => {
                    slots.note(appended.stream, appended.first, slot);
                }
                Change::Other(record) if self.frees_tables(record, images, slots) => {
                    self.has_unused.store(true, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        images.commit_no = batch.commit_no;
        drop(state);
        self.commit_times.lock().unwrap_or_else(PoisonError::into_inner).record(took);
    }

    /// Whether a record may leave a table without messages.
    fn frees_tables(&self, record: &Record, images: &Images, slots: &mut Slots) -> bool {
        match record {
            Record::Expired { stream, .. } => {
                images.streams.get(stream).is_some_and(|image| slots.expire(*stream, image.low, image.next))
            }
            Record::QueueDeleted(_) | Record::GroupDeleted(..) => {
                slots.retain(|stream| images.streams.contains_key(&stream));
                true
            }
            _ => false,
        }
    }

    fn maintain_all(&self) -> Result<(), StoreError> {
        self.write_image()
    }
}

impl Store for PgStore {
    fn blocks(&self) -> bool {
        true
    }

    fn may_serve(&self) -> bool {
        self.duty.may_serve() && !self.hangs()
    }

    fn takes_queue(&self, queue: &QueueId) -> bool {
        shards::of_queue(queue, self.member.tables.shards) == self.duty.shard
    }

    fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        self.check_open()?;
        self.commit_records(records)
    }

    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError> {
        self.read_stream(stream, from, limit)
    }

    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError> {
        self.read_places(stream, seqs, bytes)
    }

    fn first_due(&self, queue: StreamId, limit: ReadLimit, skip: &BTreeSet<u64>) -> Result<ReadBatch, StoreError> {
        self.due(queue, limit, skip)
    }

    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError> {
        self.entry_times(stream, from, count, until_ms)
    }

    fn entered_each(&self, messages: &[(StreamId, u64)]) -> Result<Vec<Option<i64>>, StoreError> {
        self.entry_times_of_each(messages)
    }

    fn syncs(&self) -> Histogram {
        self.commit_times.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn needs_maintenance(&self) -> bool {
        self.wants_maintenance()
    }

    fn maintain(&self) -> Result<bool, StoreError> {
        self.maintenance_step()
    }

    fn probe_reads(&self) -> Result<bool, StoreError> {
        self.query(Proof::Connection, "SELECT 1", &[]).map(|_| true)
    }

    fn probe(&self) -> Result<(), StoreError> {
        let owned = "SELECT 1 FROM shard WHERE id = $1 AND epoch = $2";
        match self.query(Proof::Connection, owned, &[&self.duty.shard, &self.duty.epoch])?.is_empty() {
            false => Ok(()),
            true => Err(self.lose(PostgresError::NotOwner)),
        }
    }

    fn keep_leases(&self, leases: &[LeaseSnapshot]) -> Result<(), StoreError> {
        self.check_open()?;
        self.write_leases(leases)
    }

    fn release(&self, in_order: bool) -> Result<(), StoreError> {
        // With a current image, the next owner has no journal to replay.
        let ended =
            if in_order && !self.is_released() { self.check_open().and_then(|()| self.maintain_all()) } else { Ok(()) };
        // Calls are refused from here on, before another server may own the shard.
        if self.released.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let given_up = match in_order {
            true => self.runtime().block_on(self.member.release(&self.duty)).map_err(StoreError::new),
            false => {
                if self.is_alone {
                    self.member.stop();
                }
                self.member.lose(&self.duty);
                Ok(())
            }
        };
        self.runtime().block_on(async { tokio::join!(self.commits.close(), self.reads.close(), self.upkeep.close()) });
        ended.and(given_up)
    }
}

/// A place or number as a column has it. None comes near the limit.
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The error of calls after the store was released.
const CLOSED: &str = "the store is closed";

fn released() -> StoreError {
    StoreError::lost(CLOSED)
}
