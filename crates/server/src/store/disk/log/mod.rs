//! The log: every commit is a frame at its end, which is on the disk when the call returns.
//!
//! Segments are created in advance and with their full size. So a commit changes only bytes that belong to the segment already, and
//! a full disk refuses the next segment, not a commit that fits into this one. On a full disk only new messages are refused:
//! `reserve` keeps a file for everything else, and the end of each segment is kept for commits without messages.
//!
//! | file | contents |
//! |---|---|
//! | `frame` | the bytes of a commit |
//! | `segment` | the files: names, headers, creating and opening |
//! | `next_segment` | the segment that is created in advance |
//! | `reserve` | space that is kept for a full disk |
//! | `frame_reader`, `damaged_frame` | reading frames, also damaged ones |
//! | `file_cache` | segments open for reading |
//! | `answered` | up to which commit requests were answered |
//! | `lost_end` | whether the log has what the index has |
//! | `zeros` | overwriting parts of a segment with zeros |

use std::{
    fs::File,
    io::{self},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::store::{
    disk::{
        file_ops::{self},
        log::{
            answered::{AnsweredFile, AnsweredMark},
            frame::Frame,
            next_segment::{ACK_RESERVE_FRACTION, NextSegment, size_for},
            segment::{SEGMENT_HEADER, named},
            zeros::wipe,
        },
    },
    position::Position,
};

pub(crate) mod answered;
pub(crate) mod damaged_frame;
pub(crate) mod file_cache;
pub(crate) mod frame;
pub(crate) mod frame_reader;
pub(crate) mod lost_end;
pub(crate) mod next_segment;
pub(crate) mod reserve;
pub(crate) mod segment;
pub(crate) mod zeros;

/// The end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    next: Arc<NextSegment>,
    file: Arc<File>,
    /// Where the next frame goes.
    end: Position,
    size: u64,
    /// Bytes of a frame that failed may be between the end and here.
    dirty_until: Option<u64>,
    /// The last commit.
    last: AnsweredMark,
    /// Records up to which commit requests were answered.
    answered: AnsweredFile,
}

impl Log {
    /// Continues the log at `end` of this file.
    pub(crate) fn resume(
        next: Arc<NextSegment>,
        file: Arc<File>,
        end: Position,
        last: AnsweredMark,
        answered: AnsweredFile,
    ) -> io::Result<Self> {
        // Asked of the file and not of the settings: a segment for one large commit is larger, and one made of the
        // reserve is smaller.
        let size = file.metadata()?.len();
        Ok(Self { next, file, end, size, dirty_until: None, last, answered })
    }

    /// Where the next frame goes.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// The last commit; number 0 if there is none. Its position is the default if it is not known.
    pub(crate) fn last(&self) -> AnsweredMark {
        self.last
    }

    /// Appends a frame. Returns where it begins, and how long the disk took. After an error the frame is not part of the log, and
    /// the next one takes its place.
    pub(crate) fn append(&mut self, frame: &mut Frame) -> io::Result<(Position, Duration)> {
        // Refused before anything is written, so that the remaining space is left to changes that free messages.
        if frame.has_new_messages {
            self.next.reserve.check()?;
        }
        // Room first: it may move the end to another segment, and what a failed frame left has to be wiped where the frame goes.
        self.make_room(frame)?;
        self.wipe_failed()?;
        let number = self.last.number + 1;
        // The number is part of the checksum. A frame that is left over from an earlier attempt at this place can only have the
        // same number, and is overwritten by this one or wiped.
        let bytes = frame.finish(number);
        // Set before the write: whether the write or the sync fails, bytes of the frame may be on the disk, and a crash from here
        // on may even find all of it. Both are allowed, because no request was answered.
        self.dirty_until = Some(self.end.offset + bytes.len() as u64);
        let took = write(&self.file, bytes, self.end.offset)
            .map_err(|error| named(&error, &self.next.directory, self.end.segment))?;
        // From here on the frame is durable and counts, whatever fails below.
        self.dirty_until = None;
        let at = self.end;
        self.end.offset += bytes.len() as u64;
        // Noted only after the frame is on the disk, so that the note is never ahead of the log: recovery refuses a log that ends
        // before the note.
        self.last = AnsweredMark { number, at };
        self.answered.note(self.last);
        Ok((at, took))
    }

    /// Continues in the next segment if the frame does not fit into this one.
    fn make_room(&mut self, frame: &Frame) -> io::Result<()> {
        let length = frame.len() as u64;
        // Commits without messages may use the whole segment. So acknowledgements go on where a full disk refuses the
        // next segment, and they are what frees room.
        let kept = if frame.has_messages { self.size / ACK_RESERVE_FRACTION } else { 0 };
        if self.end.offset + length + kept <= self.size {
            return Ok(());
        }
        self.start_next(length, frame.has_new_messages)
    }

    /// Continues in the next segment, for a frame of this length. If this segment contains no frame yet, it is enlarged instead,
    /// because recovery would take a segment without frames between others for one that lost them.
    fn start_next(&mut self, length: u64, are_new: bool) -> io::Result<()> {
        // The old segment is never written again, so what a failed frame left at its end has to go now: recovery
        // would find it there.
        self.wipe_failed()?;
        if self.end.offset == SEGMENT_HEADER {
            return self.enlarge(size_for(length));
        }
        let (segment, file) = self.next.take(length, are_new)?;
        self.size = file.metadata()?.len();
        // The old segment is complete. Nothing is written to it again, so it needs no further sync.
        self.file = Arc::new(file);
        self.end = Position { segment, offset: SEGMENT_HEADER };
        Ok(())
    }

    /// Enlarges the segment, which contains no frame.
    fn enlarge(&mut self, size: u64) -> io::Result<()> {
        if size > self.size {
            let Self { next, file, end, .. } = self;
            let enlarged = next.directory.enlarge(file, end.segment, size);
            enlarged.map_err(|error| named(&error, &next.directory, end.segment))?;
            self.size = size;
        }
        Ok(())
    }

    /// Leaves this segment, so that it can be deleted when nothing in it is needed any more.
    pub(crate) fn leave_file(&mut self, frame: &mut Frame) -> io::Result<(Position, Duration)> {
        self.start_next(frame.len() as u64, false)?;
        self.append(frame)
    }

    /// Overwrites what a failed frame left after the end. Whatever recovery reads there has to be a frame or zeros: a refused commit
    /// must not come back.
    pub(crate) fn wipe_failed(&mut self) -> io::Result<()> {
        if let Some(until) = self.dirty_until {
            // If this fails too, the next commit tries again: nothing may be appended before the leftovers are gone.
            wipe(&self.file, self.end.offset, until)?;
            self.dirty_until = None;
        }
        Ok(())
    }

    /// Whether the next segment should be created, because this one is half full.
    pub(crate) fn needs_next_segment(&self) -> bool {
        self.is_half_full() && !self.next.is_made()
    }

    /// Whether more than half of the segment is written.
    pub(crate) fn is_half_full(&self) -> bool {
        self.end.offset > self.size / 2
    }
}

/// Writes bytes and waits until they are on the disk. Returns how long the disk took.
fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<Duration> {
    // The segment has its full size already, so `fdatasync` has no metadata to write and one sync is enough.
    file_ops::write(file, bytes, offset)?;
    let begun = Instant::now();
    file_ops::sync_data(file)?;
    Ok(begun.elapsed())
}
