//! Maintenance: flushes the memtable, sweeps deleted rows, creates and deletes segments. No request waits for it.

use std::{io, sync::atomic::Ordering};

use crate::store::{
    Record, StoreError,
    disk::{
        DiskStore, compaction,
        index::writer::Writer,
        locked,
        log::{Log, file_cache::ReadError, frame::Frame},
    },
    error::is_full,
};

impl DiskStore {
    /// Does a bounded piece of each kind of work. Returns whether there is more. Deletion continues while the disk is full.
    pub(crate) fn maintenance_step(&self) -> Result<bool, StoreError> {
        // A separate statement, because the guard must be dropped before the flush locks the memtable.
        let much = locked(&self.memtable).needs_flush();
        if much {
            self.flush_memtable()?;
        }
        // Sweeping comes before anything that needs space, because it frees some.
        let more_garbage = self.with_index_reserve(|| self.change_index(Writer::sweep))?;
        if more_garbage {
            self.segments_emptied.store(true, Ordering::Relaxed);
            // After each step and not only at the end of a sweep, because on a full disk senders are waiting for this space.
            self.remove_emptied()?;
        } else {
            self.maintain_log()?;
        }
        // Its error is reported last, so that a full disk does not stop deletion.
        let made = self.make_files();
        let more_of_log = self.segments_emptied.load(Ordering::Relaxed) || locked(&self.compaction).is_running();
        if more_garbage || more_of_log && !self.is_pinned() {
            return Ok(true);
        }
        made.map(|()| false)
    }

    /// Creates the files that are missing, and frees room for new messages where a full disk prevents that.
    fn make_files(&self) -> Result<(), StoreError> {
        match self.make_missing_files() {
            Err(error) if is_full(error.kind()) => self.leave_sparse_file().and(Err(StoreError::new(error))),
            made => made.map_err(StoreError::new),
        }
    }

    /// Creates the files that are missing: first the reserve for a full disk, then the next segment of the log.
    pub(crate) fn make_missing_files(&self) -> io::Result<()> {
        self.reserve.make()?;
        let needs_next = locked(&self.log).as_ref().is_some_and(Log::needs_next_segment);
        if needs_next { self.next.make() } else { Ok(()) }
    }

    /// Whether a backup is being made, which needs all segments.
    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }

    /// Deletes empty segments while more is being swept, so that their space is free as soon as possible.
    fn remove_emptied(&self) -> Result<(), StoreError> {
        let found = self.change_index(|writer| writer.has_emptied_segments(writer.applied.segment))?;
        if found { self.remove_empty() } else { Ok(()) }
    }

    /// Deletes segments that nothing needs.
    fn remove_empty(&self) -> Result<(), StoreError> {
        self.with_index_reserve(|| {
            self.change_index(|writer| {
                // Checked under the lock of the index, which a backup takes after it has set its pin: so either it sees the pin, or
                // the backup waits.
                if self.is_pinned() {
                    self.segments_emptied.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                // The segment that the index has reached, and later ones, are needed to replay the log after a crash.
                let before = writer.applied.segment;
                let used = writer.segments_in_use(before)?;
                let mut unused = self.files.directory.segments().map_err(ReadError::Io)?;
                unused.retain(|segment| *segment < before && used.binary_search(segment).is_err());
                if !unused.is_empty() {
                    // The index is brought to the disk before the files go: until then a crash would restore it from them.
                    writer.forget_segments(before)?;
                }
                unused.into_iter().try_for_each(|segment| Ok(self.files.remove(segment).map_err(ReadError::Io)?))
            })
        })
    }

    /// Looks for segments to delete or to compact.
    fn maintain_log(&self) -> Result<(), StoreError> {
        if self.is_pinned() {
            return Ok(());
        }
        // Reset before looking, so that segments that become empty meanwhile are looked for again.
        if self.segments_emptied.swap(false, Ordering::Relaxed) {
            let removed = self.remove_empty();
            self.segments_emptied.fetch_or(removed.is_err(), Ordering::Relaxed);
            removed?;
            self.choose_segment()?;
        }
        self.compact_some()
    }

    /// On a full disk, leaves the last segment if little of it is needed, so that its space becomes available for new messages.
    fn leave_sparse_file(&self) -> Result<(), StoreError> {
        let end = match locked(&self.log).as_ref() {
            Some(log) if log.is_half_full() => log.end(),
            _ => return Ok(()),
        };
        self.flush_memtable()?;
        let needed = self.change_index(|writer| writer.bytes_in_use(end.segment))?;
        if needed >= self.segment_bytes / compaction::SPARSE_FRACTION {
            return Ok(());
        }
        // A frame without effect. Recovery requires that a segment begins with the next frame, so an empty one cannot be entered.
        let frame = Frame::of(self.files.directory.log, &[Record::GivenUp]).map_err(StoreError::new)?;
        self.append_by(frame, Log::leave_file)?;
        // The old segment can be compacted and deleted as soon as the index has left it.
        self.segments_emptied.store(true, Ordering::Relaxed);
        self.flush_memtable()
    }
}
