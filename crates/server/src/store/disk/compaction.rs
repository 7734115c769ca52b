//! Compaction: a segment that holds few live messages is emptied by writing those messages again at the end of the log. Then its
//! file can be deleted.
//!
//! Most segments empty themselves, because messages expire in the order in which they came. A few messages with a longer retention
//! or a long delay can hold one back.

use std::{collections::BTreeSet, io, sync::atomic::Ordering};

use crate::store::{
    StoreError,
    disk::{
        DiskStore,
        index::lookup,
        locked,
        log::{
            file_cache::ReadError,
            frame::{FRAME_HEADER, Frame, Item, Items},
            frame_reader::FrameReader,
            segment::SEGMENT_HEADER,
        },
    },
    position::{Position, Run},
    run,
};

/// A segment is compacted when less than one part in this number is in use.
pub(crate) const SPARSE_FRACTION: u64 = 4;
/// The maximum number of bytes that one step looks through, and moves.
const STEP_BYTES: usize = 1024 * 1024;

/// The compaction that is running.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// The segment is done up to here. `None` while none is compacted.
    at: Option<Position>,
    /// Segments that could not be emptied. They are not tried again.
    given_up: BTreeSet<u64>,
}

impl Compaction {
    /// Whether a segment is being compacted.
    pub(crate) fn is_running(&self) -> bool {
        self.at.is_some()
    }
}

impl DiskStore {
    /// Chooses the segment with the fewest live bytes, if they are few.
    pub(crate) fn choose_segment(&self) -> Result<(), StoreError> {
        let little = self.segment_bytes / SPARSE_FRACTION;
        // Never the last segment, to which the log still appends.
        let found = self.change_index(|writer| writer.emptiest_segment(writer.applied.segment, little))?;
        let mut compaction = locked(&self.compaction);
        if compaction.at.is_none() {
            let chosen = found.filter(|segment| !compaction.given_up.contains(segment));
            compaction.at = chosen.map(|segment| Position { segment, offset: SEGMENT_HEADER });
        }
        Ok(())
    }

    /// Compacts the next piece of the chosen segment.
    pub(crate) fn compact_some(&self) -> Result<(), StoreError> {
        let Some(at) = locked(&self.compaction).at else { return Ok(()) };
        // Without the lock of the compaction, because it reads and appends.
        let moved = self.compact_from(at);
        let mut compaction = locked(&self.compaction);
        match moved {
            Ok(next) => {
                compaction.at = next;
                if next.is_some() {
                    return Ok(());
                }
                // If anything is left in the segment, it stays.
                compaction.given_up.insert(at.segment);
                drop(compaction);
                // The index must know the new positions before the file can be deleted.
                self.segments_emptied.store(true, Ordering::Relaxed);
                self.flush_memtable()
            }
            Err(error) => {
                compaction.at = None;
                // After a full disk the segment is tried again when something else was deleted.
                if !error.is_full() {
                    compaction.given_up.insert(at.segment);
                }
                Err(error)
            }
        }
    }

    /// Moves live runs from `at` on. Returns where to continue.
    fn compact_from(&self, at: Position) -> Result<Option<Position>, StoreError> {
        let log = self.files.directory.log;
        let file = self.files.get(at.segment).map_err(StoreError::new)?;
        let mut frames = FrameReader::from(&file, log, at.offset).map_err(StoreError::new)?;
        let mut moved = Frame::empty(log, STEP_BYTES);
        // A bounded piece at a time, so that one frame of moved messages does not keep the commits of clients waiting
        // for the log.
        while frames.offset - at.offset < STEP_BYTES as u64 {
            let begin = Position { segment: at.segment, offset: frames.offset };
            let (items, more) = items_at(&mut frames).map_err(StoreError::new)?;
            for run in runs_in(&items, begin) {
                self.move_run(run, &mut moved)?;
            }
            if !more {
                self.append_moved(moved)?;
                return Ok(None);
            }
        }
        self.append_moved(moved)?;
        Ok(Some(Position { segment: at.segment, offset: frames.offset }))
    }

    fn move_run(&self, run: Run, moved: &mut Frame) -> Result<(), StoreError> {
        // The index decides which runs are live, because deleted messages look the same in the log.
        let found = self.look_up(|conn| lookup::run_with(conn, run.stream, run.first))?;
        if found == Some(run) {
            let bytes = self.files.bytes(&run).map_err(|error: ReadError| StoreError::new(error))?;
            // Written again with its old bytes. If the process crashes now, the index still points to the old segment, and the copy
            // is never looked at.
            moved.add_moved(run, &run::moved_bytes(self.files.directory.log, &run, &bytes));
        }
        Ok(())
    }

    fn append_moved(&self, moved: Frame) -> Result<(), StoreError> {
        if moved.is_empty() { Ok(()) } else { self.append(moved) }
    }
}

/// The items of the next frame, and whether there may be more after it. For a damaged frame, the bytes up to the next whole one.
fn items_at(frames: &mut FrameReader<'_>) -> io::Result<(Vec<u8>, bool)> {
    let begin = frames.offset;
    if let Some((_, items, _)) = frames.next()? {
        return Ok((items, true));
    }
    if frames.is_unwritten(begin)? {
        return Ok((Vec::new(), false));
    }
    let next = frames.next_whole(begin)?;
    let mut bytes = frames.bytes_until(begin, next)?;
    frames.offset = begin + bytes.len() as u64;
    Ok((bytes.split_off(bytes.len().min(FRAME_HEADER)), next.is_some()))
}

/// The runs in a frame that begins at `at`, as far as they can be recognized.
fn runs_in(items: &[u8], at: Position) -> Vec<Run> {
    let begin = at.offset + FRAME_HEADER as u64;
    let items = Items::of(items).map_while(Result::ok).filter(Item::is_run);
    let run = |item: Item<'_>| {
        run::head(item.content, Position { segment: at.segment, offset: begin + item.offset as u64 }).ok()
    };
    items.filter_map(run).collect()
}
