//! [`NextSegment`]: the segment that the log continues in, created before it is needed.

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{
    disk::{
        file_ops,
        log::reserve::Reserve,
        log::segment::{LogDirectory, SEGMENT_HEADER, named},
    },
    error::is_full,
};

/// One part in this number of each segment is kept for acknowledgements.
pub(crate) const ACK_RESERVE_FRACTION: u64 = 64;

/// The segment that the log continues in.
#[derive(Debug)]
pub(crate) struct NextSegment {
    pub(crate) directory: LogDirectory,
    /// The size of a new segment.
    size: u64,
    made: Mutex<NextSegmentState>,
    pub(crate) reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct NextSegmentState {
    number: u64,
    file: Option<File>,
    /// Whether a part of the file may exist, because it could be neither completed nor removed.
    partial: bool,
}

impl NextSegment {
    /// The segments from this number on. `file` is the first of them, if it exists already.
    pub(crate) fn from(
        directory: LogDirectory,
        number: u64,
        size: u64,
        file: Option<File>,
        reserve: Arc<Reserve>,
    ) -> Self {
        Self { directory, size, made: Mutex::new(NextSegmentState { number, file, partial: false }), reserve }
    }

    /// Creates the segment if it does not exist. The log waits for that only if it needs the segment meanwhile.
    pub(crate) fn make(&self) -> io::Result<()> {
        // Held while the file is created. The log needs the lock only if it fills its segment meanwhile.
        let mut made = self.lock();
        if made.file.is_none() {
            made.file = Some(self.create(&mut made, self.size)?);
        }
        Ok(())
    }

    /// Whether the segment exists.
    pub(crate) fn is_made(&self) -> bool {
        // If it is locked it is being created.
        self.made.try_lock().map_or(true, |made| made.file.is_some())
    }

    /// Hands over the segment, large enough for a frame of this length. On a full disk it is made of the reserve, unless the
    /// messages are new.
    pub(crate) fn take(&self, length: u64, are_new: bool) -> io::Result<(u64, File)> {
        let mut made = self.lock();
        let needed = size_for(length);
        let file = match made.file.take() {
            Some(file) if needed <= self.size => file,
            // A commit that is larger than a segment gets a segment of its size. If that fails, the prepared segment is kept for
            // smaller commits.
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
                    // Renaming the reserve may have succeeded although making a segment of it failed.
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
        // An incomplete file of an earlier attempt is in the way, because a segment is never created over an existing file.
        if *partial {
            file_ops::remove(&self.directory.file(*number)).map_err(|error| named(&error, &self.directory, *number))?;
            *partial = false;
        }
        self.directory.create(*number, size).map_err(|error| {
            // A file that existed before does not belong to us and must not be removed.
            *partial = error.kind() != ErrorKind::AlreadyExists && self.directory.file(*number).exists();
            named(&error, &self.directory, *number)
        })
    }

    fn lock(&self) -> MutexGuard<'_, NextSegmentState> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of a segment for a frame of this length.
pub(crate) fn size_for(length: u64) -> u64 {
    // The frame has to fit beside the part of the segment that is kept for acknowledgements. Rounded up.
    (length + SEGMENT_HEADER) * ACK_RESERVE_FRACTION / (ACK_RESERVE_FRACTION - 1) + ACK_RESERVE_FRACTION
}
