//! What nobody waits for: the index takes in what the log has, what was deleted is swept, files of the log are made and go.

use std::sync::atomic::Ordering;

use super::{DiskStore, files::ReadError, index::writer::Writer, locked, log::Log};
use crate::server::store::StoreError;

impl DiskStore {
    /// A bounded piece of each thing to do; whether there is more of any.
    pub(super) fn tidy_step(&self) -> Result<bool, StoreError> {
        let much = locked(&self.recent).is_much();
        if much {
            self.catch_up()?;
        }
        let more_garbage = self.change_index(Writer::sweep)?;
        if more_garbage {
            self.emptied.store(true, Ordering::Relaxed);
        } else {
            self.tidy_log()?;
        }
        let wants_next = locked(&self.log).as_ref().is_some_and(Log::wants_next);
        if wants_next {
            self.next.make().map_err(StoreError::new)?;
        }
        let more_of_log = self.emptied.load(Ordering::Relaxed) || locked(&self.moving).is_under_way();
        Ok(more_garbage || more_of_log && !self.is_pinned())
    }

    /// Whether a copy is being made, for which files of the log have to stay.
    fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }

    /// Removes files of the log that nothing needs.
    fn remove_empty(&self) -> Result<(), StoreError> {
        self.change_index(|writer| {
            if self.is_pinned() {
                self.emptied.store(true, Ordering::Relaxed);
                return Ok(());
            }
            let before = writer.applied.segment;
            let used = writer.segments_in_use(before)?;
            let mut unused = self.files.directory.segments().map_err(ReadError::Io)?;
            unused.retain(|segment| *segment < before && used.binary_search(segment).is_err());
            if !unused.is_empty() {
                writer.forget_segments(before)?;
            }
            unused.into_iter().try_for_each(|segment| Ok(self.files.remove(segment).map_err(ReadError::Io)?))
        })
    }

    /// Looks for files of the log that can go, or be emptied.
    fn tidy_log(&self) -> Result<(), StoreError> {
        if self.is_pinned() {
            return Ok(());
        }
        if self.emptied.swap(false, Ordering::Relaxed) {
            let removed = self.remove_empty();
            self.emptied.fetch_or(removed.is_err(), Ordering::Relaxed);
            removed?;
            self.choose_file_to_empty()?;
        }
        self.move_some()
    }
}
