//! The log: every commit a frame at its end, on the disk when the call returns.
//!
//! Its files are made ahead of time and at their full size, so that a commit changes nothing of the file system but bytes
//! that are already its own, and a disk that is full refuses the next file and not what fits into this one. Then only new messages
//! are refused: a file is kept for everything else (`reserve`), and the end of each file for commits without messages.

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
pub(crate) mod next_segment;
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
    /// Up to where bytes of a frame that failed may be behind the end.
    dirty_until: Option<u64>,
    /// The last commit.
    last: AnsweredMark,
    /// Says up to where commits were answered.
    answered: AnsweredFile,
}

impl Log {
    /// The log goes on in this file at this place.
    pub(crate) fn resume(
        next: Arc<NextSegment>,
        file: Arc<File>,
        end: Position,
        last: AnsweredMark,
        answered: AnsweredFile,
    ) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { next, file, end, size, dirty_until: None, last, answered })
    }

    /// Where the next frame goes.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// The last commit; number 0 where there is none. Where it begins is the default if that is not known.
    pub(crate) fn last(&self) -> AnsweredMark {
        self.last
    }

    /// Appends a frame; gives where it begins, and how long the disk took. After an error the frame is not there, and the
    /// next one takes its place.
    pub(crate) fn append(&mut self, frame: &mut Frame) -> io::Result<(Position, Duration)> {
        if frame.has_new_messages {
            self.next.reserve.check()?;
        }
        self.make_room(frame)?;
        self.wipe_failed()?;
        let number = self.last.number + 1;
        let bytes = frame.finish(number);
        self.dirty_until = Some(self.end.offset + bytes.len() as u64);
        let took = write(&self.file, bytes, self.end.offset)
            .map_err(|error| named(&error, &self.next.directory, self.end.segment))?;
        self.dirty_until = None;
        let at = self.end;
        self.end.offset += bytes.len() as u64;
        // After the frame is on the disk: the note may be behind the log, and never ahead of it.
        self.last = AnsweredMark { number, at };
        self.answered.note(self.last);
        Ok((at, took))
    }

    /// Goes on in the next file if the frame does not fit into this one.
    fn make_room(&mut self, frame: &Frame) -> io::Result<()> {
        let length = frame.len() as u64;
        let kept = if frame.has_messages { self.size / ACK_RESERVE_FRACTION } else { 0 };
        if self.end.offset + length + kept <= self.size {
            return Ok(());
        }
        self.start_next(length, frame.has_new_messages)
    }

    /// Goes on in the next file, for a frame of this length. Until there is a frame in it the log still ends where it did, and it
    /// is not left: a file without frames would be taken for one that lost them.
    fn start_next(&mut self, length: u64, are_new: bool) -> io::Result<()> {
        self.wipe_failed()?;
        if self.end.offset == SEGMENT_HEADER {
            return self.enlarge(size_for(length));
        }
        let (segment, file) = self.next.take(length, are_new)?;
        self.size = file.metadata()?.len();
        self.file = Arc::new(file);
        self.end = Position { segment, offset: SEGMENT_HEADER };
        Ok(())
    }

    /// Makes the file at least so large; there is no frame in it.
    fn enlarge(&mut self, size: u64) -> io::Result<()> {
        if size > self.size {
            let Self { next, file, end, .. } = self;
            let enlarged = next.directory.enlarge(file, end.segment, size);
            enlarged.map_err(|error| named(&error, &next.directory, end.segment))?;
            self.size = size;
        }
        Ok(())
    }

    /// Leaves the file that the log ends in, so that it can be removed when nothing in it is needed any more.
    pub(crate) fn leave_file(&mut self, frame: &mut Frame) -> io::Result<(Position, Duration)> {
        self.start_next(frame.len() as u64, false)?;
        self.append(frame)
    }

    /// Removes what a frame that failed left behind the end: what is read there later has to be a frame or nothing.
    pub(crate) fn wipe_failed(&mut self) -> io::Result<()> {
        if let Some(until) = self.dirty_until {
            wipe(&self.file, self.end.offset, until)?;
            self.dirty_until = None;
        }
        Ok(())
    }

    /// Whether the next file is to be made: this one is half full.
    pub(crate) fn needs_next_segment(&self) -> bool {
        self.is_half_full() && !self.next.is_made()
    }

    /// Whether more than half of the file has been written.
    pub(crate) fn is_half_full(&self) -> bool {
        self.end.offset > self.size / 2
    }
}

/// Writes bytes and waits until they are on the disk; gives how long the disk took.
fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<Duration> {
    file_ops::write(file, bytes, offset)?;
    let begun = Instant::now();
    file_ops::sync_data(file)?;
    Ok(begun.elapsed())
}
