//! The storage of a broker: the `Store` trait, and its implementations in memory, on disk and in PostgreSQL.
//!
//! | file | contents |
//! |---|---|
//! | `record` | `Record`, one change, and the values in it |
//! | `snapshot` | `Snapshot`, what a store held when it was opened |
//! | `settings` | values of the broker that are stored as they are |
//! | `origin` | where a message entered its queue: its id |
//! | `sent_keys` | the deduplication keys of messages |
//! | `schedule` | messages that are sent again and again, and the ticks that are done |
//! | `read` | what a read asks for and returns |
//! | `error`, `open_error` | why a call, or opening, failed |
//! | `memory` | the store without a disk |
//! | `disk` | the store in a data directory |
//! | `postgres` | the store in PostgreSQL, which one server at a time owns |
//! | `transfer` | export of a store into files, and import from them |
//!
//! Messages are in *streams*, append-only logs numbered from 1 without gaps. A *cursor* is the position of a group on a stream. A
//! message with a delay waits in a *delay queue*, which is numbered like a stream and ordered by the end of the delays.
//! A store knows nothing of leases, label filters or quotas, and this folder knows nothing of the broker.

#[cfg(feature = "disk")]
use std::path::Path;
use std::{collections::BTreeSet, fmt};

use crate::histogram::Histogram;
use dms_protocol::queue::QueueId;

#[cfg(feature = "disk")]
pub mod disk;
pub(crate) mod error;
mod ids;
pub(crate) mod memory;
mod open_error;
mod origin;
#[cfg(any(feature = "disk", feature = "postgres"))]
pub(crate) mod position;
#[cfg(feature = "postgres")]
pub mod postgres;
mod read;
mod record;
#[cfg(any(feature = "disk", feature = "postgres"))]
#[cfg_attr(not(feature = "disk"), allow(dead_code, reason = "moving and repairing runs is for the log"))]
pub(crate) mod run;
mod schedule;
mod sent_keys;
mod settings;
#[cfg(any(feature = "disk", feature = "postgres"))]
pub(crate) mod settled_page;
mod snapshot;
#[cfg(all(test, any(feature = "disk", feature = "postgres")))]
pub(crate) mod test_model;
#[cfg(feature = "disk")]
pub mod transfer;

#[cfg(feature = "disk")]
pub(crate) use self::disk::tools::backup::Backup;
#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresConfig, PostgresError};
#[cfg(any(feature = "disk", feature = "postgres"))]
pub(crate) use self::schedule::ScheduleSnapshot;
pub(crate) use self::{
    error::StoreError,
    ids::{CursorId, StreamId},
    origin::FirstPlace,
    read::{Damaged, ReadBatch, ReadLimit, up_to_time},
    record::{Attempts, FailureHistory, GroupRow, QueueRow, Record, Settlement, StoredMessage},
    schedule::{ScheduleProgress, ScheduleRow},
    sent_keys::{SentKey, SentKeys},
    snapshot::{
        CursorSnapshot, DelayQueueSnapshot, GroupSnapshot, LeaseSnapshot, QueueSnapshot, Snapshot, StreamSnapshot,
    },
};
pub use self::{
    open_error::OpenError,
    origin::MessageOrigin,
    schedule::{LastTick, MissedTicks, ScheduleSource},
    sent_keys::KeyHash,
    settings::{Attempt, AttemptEnd, FailureCause, QueueChange, RetentionChange, RetentionPolicy},
};

/// Keeps records and finds messages.
///
/// # What an implementation guarantees
/// - **One owner.** From opening until [`StoreError::Lost`] nobody else changes what the store holds. An implementation finds out by
///   itself that it lost the store: from then on every call fails with `Lost`.
/// - **A commit is atomic and durable.** When [`commit`](Self::commit) returns `Ok`, all of its records are kept as durably as the
///   implementation promises. When it returns an error, none of them is visible to any later call, of this process or of a later owner.
/// - **A commit returns only when its outcome is known.** If the answer of a disk or of a remote database is missing, the
///   implementation finds out whether the commit took place (or undoes it), or the store is `Lost`. It never returns `Failed` for a
///   commit that may have taken place.
/// - **Commits are ordered.** The broker calls `commit` from one task, one call at a time. What a commit changed is found by every
///   read that begins after the commit has returned.
/// - **Reads and maintenance run beside commits**, from several threads.
///
/// Calls may block. A store for which [`blocks`](Self::blocks) is true is called on blocking threads of tokio, where an implementation
/// over an async client may use `Handle::block_on`. A dropped caller does not interrupt a call.
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// Whether calls wait for a disk or a network.
    fn blocks(&self) -> bool;

    /// Whether this process may hand out messages and answer from memory now. A store with several possible owners returns false as
    /// soon as another process may have become the owner; the broker then refuses calls without a commit. Called for each consume
    /// and acknowledgement, so it must be cheap.
    fn may_serve(&self) -> bool {
        true
    }

    /// Whether a new queue may have this id. A store that is one of several parts refuses ids whose queues belong to another part.
    fn takes_queue(&self, _queue: &QueueId) -> bool {
        true
    }

    /// Makes records durable, all or none.
    ///
    /// # Errors
    /// `Failed` if nothing was changed and the same commit may succeed later; `Refused` if the store cannot keep one of these records,
    /// whenever it is tried; `Lost` if the store no longer belongs to this process.
    fn commit(&self, records: &[Record]) -> Result<(), StoreError>;

    /// Reads messages of a stream or delay queue from `from` on, by sequence number. Damaged ones are reported, a bounded number at a
    /// time.
    fn read(&self, stream: StreamId, from: u64, limit: ReadLimit) -> Result<ReadBatch, StoreError>;

    /// Reads these messages of a stream, as far as they exist. `seqs` is in ascending order.
    fn read_these(&self, stream: StreamId, seqs: &[u64], bytes: usize) -> Result<ReadBatch, StoreError>;

    /// Reads the first messages of a delay queue by the end of their delay, without those in `skip`. If some of them are damaged, later
    /// ones may be due too.
    fn first_due(&self, delay_queue: StreamId, limit: ReadLimit, skip: &BTreeSet<u64>)
    -> Result<ReadBatch, StoreError>;

    /// Reads when messages of a stream entered: sequence numbers and times from `from` on, at most `count`, up to and including the
    /// first one after `until_ms`. Reads no bodies beyond a bounded buffer, however large the messages are. A damaged message gets the
    /// time of the next readable one, so that it never expires early.
    fn entered(&self, stream: StreamId, from: u64, count: usize, until_ms: i64) -> Result<Vec<(u64, i64)>, StoreError>;

    /// Reads when each of these messages entered, of as many streams as there are. `None` for a message that is not there.
    fn entered_each(&self, messages: &[(StreamId, u64)]) -> Result<Vec<Option<i64>>, StoreError> {
        let entered =
            |(stream, seq): &(StreamId, u64)| Ok(self.entered(*stream, *seq, 1, i64::MAX)?.first().map(|(_, at)| *at));
        messages.iter().map(entered).collect()
    }

    /// Copies everything that was committed before this call into a new directory.
    ///
    /// # Errors
    /// When there is nothing on a disk, the directory is not new, or it cannot be written.
    #[cfg(feature = "disk")]
    fn back_up(&self, _to: &Path) -> Result<Backup, StoreError> {
        Err(StoreError::new("this server keeps everything in memory: there is no data directory to copy"))
    }

    /// How long each commit took to become durable.
    fn syncs(&self) -> Histogram;

    /// Whether there is work that no request waits for.
    fn needs_maintenance(&self) -> bool;

    /// Does a bounded piece of that work, and returns whether there is more.
    fn maintain(&self) -> Result<bool, StoreError>;

    /// Why the index did not take in the log the last time it tried; `None` if it did.
    fn index_error(&self) -> Option<StoreError> {
        None
    }

    /// Why messages could not be read, if the disk failed since [`Store::probe_reads`] last succeeded.
    fn read_error(&self) -> Option<StoreError> {
        None
    }

    /// Reads again what could not be read. Returns whether that can be read now, and not only something else.
    fn probe_reads(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Why new messages are refused although other changes are still taken; `None` while they are taken.
    fn disk_full(&self) -> Option<StoreError> {
        None
    }

    /// Whether messages could be committed, as far as that can be known without any. Called after a failure.
    fn probe(&self) -> Result<(), StoreError>;

    /// Keeps the open leases for the next owner, if there can be one. Called after the last commit, before an orderly release.
    fn keep_leases(&self, _leases: &[LeaseSnapshot]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Releases the store's locks and files, after finishing maintenance if `in_order`. Every later call fails with `Lost`.
    fn release(&self, in_order: bool) -> Result<(), StoreError>;
}
