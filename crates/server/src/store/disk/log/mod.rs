//! The log: every commit a frame at its end, on the disk when the call returns.
//!
//! Its files are made ahead of time and at their full size, so that a commit changes nothing of the file system but bytes
//! that are already its own, and a disk that is full refuses the next file and not what fits into this one. Then only new messages
//! are refused: a file is kept for everything else (`reserve`), and the end of each file for commits without messages.

pub(crate) use crate::store::{position, run};

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::store::{
    disk::{
        file_ops::{self, pread},
        log::{
            answered::{AnsweredFile, AnsweredMark},
            frame::Frame,
            position::Position,
            segment::{LogDirectory, SEGMENT_HEADER},
        },
        reserve::Reserve,
    },
    full::is_full,
};

pub(crate) mod answered;
pub(crate) mod damaged_frame;
pub(crate) mod file_cache;
pub(crate) mod frame;
pub(crate) mod segment;

/// How many bytes are written at once where zeros are wanted.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The part of a file that messages leave to acknowledgements: one part of so many.
const ACK_RESERVE_FRACTION: u64 = 64;

/// The file that the log goes on with, made before it is needed.
#[derive(Debug)]
pub(crate) struct NextSegment {
    directory: LogDirectory,
    /// How large a file is made.
    size: u64,
    made: Mutex<NextSegmentState>,
    reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct NextSegmentState {
    number: u64,
    file: Option<File>,
    /// Whether a part of the file may be there: it could neither be made nor removed.
    partial: bool,
}

impl NextSegment {
    /// Files from this number on, the first of them made already where there is a `file`.
    pub(crate) fn from(
        directory: LogDirectory,
        number: u64,
        size: u64,
        file: Option<File>,
        reserve: Arc<Reserve>,
    ) -> Self {
        Self { directory, size, made: Mutex::new(NextSegmentState { number, file, partial: false }), reserve }
    }

    /// Makes the file unless it is made already. The log waits for it only if it needs it meanwhile.
    pub(crate) fn make(&self) -> io::Result<()> {
        let mut made = self.lock();
        if made.file.is_none() {
            made.file = Some(self.create(&mut made, self.size)?);
        }
        Ok(())
    }

    /// Whether there is one.
    pub(crate) fn is_made(&self) -> bool {
        // One that is being made will be.
        self.made.try_lock().map_or(true, |made| made.file.is_some())
    }

    /// Gives the file, for a frame of this length at least. On a full disk it is the one that is kept, unless messages are new.
    fn take(&self, length: u64, are_new: bool) -> io::Result<(u64, File)> {
        let mut made = self.lock();
        let needed = size_for(length);
        let file = match made.file.take() {
            Some(file) if needed <= self.size => file,
            Some(file) => {
                let enlarged = self.directory.enlarge(&file, made.number, needed);
                if let Err(error) = enlarged {
                    made.file = Some(file);
                    return Err(named(&error, &self.directory, made.number));
                }
                file
            }
            None => match self.create(&mut made, self.size.max(needed)) {
                Err(error) if !are_new && is_full(error.kind()) => {
                    let kept = self.reserve.give_to_log(&self.directory, made.number, needed);
                    made.partial = kept.is_err() && self.directory.file(made.number).exists();
                    kept.map_err(|_| error)?
                }
                created => created?,
            },
        };
        made.number += 1;
        Ok((made.number - 1, file))
    }

    fn create(&self, made: &mut NextSegmentState, size: u64) -> io::Result<File> {
        let NextSegmentState { number, partial, .. } = made;
        if *partial {
            file_ops::remove(&self.directory.file(*number)).map_err(|error| named(&error, &self.directory, *number))?;
            *partial = false;
        }
        self.directory.create(*number, size).map_err(|error| {
            // One that was there before is not ours to remove.
            *partial = error.kind() != ErrorKind::AlreadyExists && self.directory.file(*number).exists();
            named(&error, &self.directory, *number)
        })
    }

    fn lock(&self) -> MutexGuard<'_, NextSegmentState> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

/// How large a file is that has room for a frame of this length.
fn size_for(length: u64) -> u64 {
    (length + SEGMENT_HEADER) * ACK_RESERVE_FRACTION / (ACK_RESERVE_FRACTION - 1) + ACK_RESERVE_FRACTION
}

/// Writes bytes and waits until they are on the disk; gives how long the disk took.
fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<Duration> {
    file_ops::write(file, bytes, offset)?;
    let begun = Instant::now();
    file_ops::sync_data(file)?;
    Ok(begun.elapsed())
}

/// Makes bytes zeros, on the disk too. They are written whatever is read there: after a sync that failed, that may not be what is on the
/// disk, and zeros that were written before it are not written again by another sync.
fn wipe(file: &File, from: u64, until: u64) -> io::Result<()> {
    let mut begin = from;
    while begin < until {
        let length = usize::try_from(until - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        file_ops::write(file, &ZEROS[..length], begin)?;
        begin += length as u64;
    }
    file_ops::sync_all(file)
}

/// Makes everything behind a place of a file zeros, on the disk too, whatever is read there (see `wipe`): another process may have failed
/// to. The file keeps its length throughout: a shorter one is damage.
pub(crate) fn clear(file: &File, from: u64, size: u64) -> io::Result<()> {
    let (mut begin, mut found) = (from, vec![0; ZEROS.len()]);
    while begin < size {
        let length = usize::try_from(size - begin).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let (look, zeros) = (&mut found[..length], &ZEROS[..length]);
        pread::read(file, look, begin)?;
        // Most of it was never written; to write it would be 32 MiB for nothing.
        if look != zeros || !pread::is_hole(file, begin, length as u64) {
            file_ops::write(file, zeros, begin)?;
        }
        begin += length as u64;
    }
    file_ops::sync_all(file)
}

/// What went wrong with a file of the log, for whoever reads the error.
pub(crate) fn named(error: &io::Error, directory: &LogDirectory, segment: u64) -> io::Error {
    let kind = error.kind();
    let full = if kind == ErrorKind::StorageFull { "; make room on the disk" } else { "" };
    io::Error::new(kind, format!("{}: {error}{full}", directory.file(segment).display()))
}
