//! The file that the log continues in, made before it is needed.

use std::{
    fs::File,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::store::{
    disk::{
        file_ops,
        log::segment::{LogDirectory, SEGMENT_HEADER, named},
        reserve::Reserve,
    },
    error::is_full,
};

/// The part of a file that messages leave to acknowledgements: one part of so many.
pub(crate) const ACK_RESERVE_FRACTION: u64 = 64;

/// The file that the log goes on with, made before it is needed.
#[derive(Debug)]
pub(crate) struct NextSegment {
    pub(crate) directory: LogDirectory,
    /// How large a file is made.
    size: u64,
    made: Mutex<NextSegmentState>,
    pub(crate) reserve: Arc<Reserve>,
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
    pub(crate) fn take(&self, length: u64, are_new: bool) -> io::Result<(u64, File)> {
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

/// How large a file is that has room for a frame of this length.
pub(crate) fn size_for(length: u64) -> u64 {
    (length + SEGMENT_HEADER) * ACK_RESERVE_FRACTION / (ACK_RESERVE_FRACTION - 1) + ACK_RESERVE_FRACTION
}
