//! [`Memtable`]: the changes that are in the log but not in the index yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::store::{
    Record, StreamId,
    disk::log::frame::Change,
    position::{Position, Run},
};

/// The number of changes after which the memtable is flushed.
const FLUSH_CHANGES: usize = 1_024;
/// The number of bytes in the log after which the memtable is flushed. Recovery reads the part of the log that the index lacks.
const FLUSH_BYTES: u64 = 8 * 1024 * 1024;

/// Changes in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct IndexBatch {
    pub(crate) changes: Vec<Change>,
    /// The position in the log after them.
    pub(crate) end: Position,
    /// The number of the next frame.
    pub(crate) number: u64,
}

impl IndexBatch {
    /// Whether it deletes anything, so that a segment may be empty when the index has it.
    pub(crate) fn deletes(&self) -> bool {
        self.changes.iter().any(deletes)
    }
}

fn deletes(change: &Change) -> bool {
    use Record::{DelayEnded, DelayQueuePurged, Expired, GroupDeleted, QueueDeleted};
    matches!(
        change,
        Change::Other(DelayQueuePurged { .. } | Expired { .. } | QueueDeleted(_) | GroupDeleted(..) | DelayEnded(..))
    )
}

/// The delay queue that a change belongs to.
fn delay_queue_of(change: &Change) -> Option<StreamId> {
    match change {
        Change::Delayed(run, _) => Some(run.stream),
        Change::Other(Record::DelayEnded(delay_queue, ..) | Record::DelayQueuePurged { delay_queue, .. }) => {
            Some(*delay_queue)
        }
        _ => None,
    }
}

/// The changes that the index lacks, and the runs among them by stream.
#[derive(Debug)]
pub(crate) struct Memtable {
    batch: IndexBatch,
    /// Includes the runs of a batch that is being flushed.
    runs: BTreeMap<(StreamId, u64), Run>,
    /// Delay queues with changes.
    delay_queues: BTreeSet<StreamId>,
    /// The bytes of the changes, as they are in the log.
    bytes: u64,
    /// Whether it is flushed however small it is: something was deleted, whose space is free once the index has it, or the last
    /// flush failed.
    is_due: bool,
}

impl Memtable {
    /// A memtable after a flush: the index has everything up to `end`.
    pub(crate) fn nothing_behind(end: Position, number: u64) -> Self {
        let batch = IndexBatch { changes: Vec::new(), end, number };
        Self { batch, runs: BTreeMap::new(), delay_queues: BTreeSet::new(), bytes: 0, is_due: false }
    }

    /// Adds the changes of a frame.
    pub(crate) fn add(&mut self, changes: Vec<Change>, bytes: u64, end: Position) {
        for change in &changes {
            match change {
                // Runs can be read from here at once. Other changes matter to the index only.
                Change::Appended(run, _) => drop(self.runs.insert((run.stream, run.first), *run)),
                change => self.delay_queues.extend(delay_queue_of(change)),
            }
            // An ended delay deletes one message. If it counted, each would cause a separate transaction.
            self.is_due |= deletes(change) && !matches!(change, Change::Other(Record::DelayEnded(..)));
        }
        self.batch.changes.extend(changes);
        self.batch.end = end;
        self.batch.number += 1;
        self.bytes += bytes;
    }

    /// The number of the next frame.
    pub(crate) fn number(&self) -> u64 {
        self.batch.number
    }

    /// Whether it should be flushed.
    pub(crate) fn needs_flush(&self) -> bool {
        self.is_due || self.batch.changes.len() >= FLUSH_CHANGES || self.bytes >= FLUSH_BYTES
    }

    /// Whether the index lacks changes of this delay queue.
    pub(crate) fn changed_delay_queue(&self, stream: StreamId) -> bool {
        self.delay_queues.contains(&stream)
    }

    /// Takes the batch to flush. Its runs stay visible to reads.
    pub(crate) fn take(&mut self) -> IndexBatch {
        let next = IndexBatch { changes: Vec::new(), ..self.batch };
        // The runs stay: reads need them until the index has the batch.
        (self.bytes, self.is_due) = (0, false);
        std::mem::replace(&mut self.batch, next)
    }

    /// Takes a batch back that could not be flushed.
    pub(crate) fn put_back(&mut self, batch: IndexBatch) {
        // Commits have continued meanwhile, and the changes must stay in the order of the log.
        let later = std::mem::replace(&mut self.batch.changes, batch.changes);
        self.batch.changes.extend(later);
        // Tried again with the next maintenance, whatever made it due: until a flush succeeds, the index counts as failing.
        self.is_due = true;
    }

    /// Forgets a batch that was flushed.
    pub(crate) fn forget(&mut self, batch: &IndexBatch) {
        for change in &batch.changes {
            if let Change::Appended(run, _) = change {
                self.runs.remove(&(run.stream, run.first));
            }
        }
        // The remaining changes were added during the flush.
        self.delay_queues = self.batch.changes.iter().filter_map(delay_queue_of).collect();
    }

    /// The runs of a stream that contain the next `messages` messages, beginning at `from`, and whether one of them contains
    /// `from`.
    pub(crate) fn runs(&self, stream: StreamId, from: u64, messages: usize) -> (Vec<Run>, bool) {
        let before = self.runs.range((stream, 0)..=(stream, from)).next_back().map(|(_, run)| *run);
        let covering = before.filter(|run| run.end() > from);
        let behind = self.runs.range((stream, from + 1)..=(stream, u64::MAX)).map(|(_, run)| *run);
        let mut left = messages as u64;
        let mut found = Vec::new();
        for run in covering.into_iter().chain(behind) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(run.end() - run.first.max(from));
            found.push(run);
        }
        (found, covering.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_could_not_be_flushed_is_due_again() {
        let mut memtable = Memtable::nothing_behind(Position::default(), 1);
        memtable.add(vec![Change::Other(Record::GivenUp)], FLUSH_BYTES, Position::default());
        assert!(memtable.needs_flush());
        let batch = memtable.take();
        assert!(!memtable.needs_flush());
        memtable.put_back(batch);
        assert!(memtable.needs_flush());
    }
}
