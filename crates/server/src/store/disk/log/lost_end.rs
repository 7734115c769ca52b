//! Whether the log has the commits that the index has.
//!
//! A commit reaches the index only after it is on the disk in the log, so no crash leaves an index that is ahead of its log. If one of
//! the two was restored without the other, or the end of the log was overwritten, the index can be ahead.

use std::{
    fs::File,
    io::{self, ErrorKind},
};

use crate::store::{
    disk::{
        file_ops::pread,
        log::{
            answered::AnsweredMark,
            frame_reader::FrameReader,
            segment::{LogDirectory, SEGMENT_HEADER},
        },
    },
    position::Position,
};

/// The number of bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// The end of a log that lacks commits of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostEnd {
    /// The number of the last commit; 0 if there is none.
    pub(crate) last: u64,
    /// Where nothing was ever written. `None` if other commits are in the place of those that the index has.
    pub(crate) unwritten: Option<Position>,
}

impl LostEnd {
    /// The end of the log, if it is before `at`, where the index says that commit `number` begins. Damaged commits count as there: only
    /// bytes that were never written show that commits are missing. `answered` shortens the search.
    pub(crate) fn find(
        directory: &LogDirectory,
        (at, number): (Position, u64),
        answered: Option<AnsweredMark>,
    ) -> io::Result<Option<Self>> {
        if number <= 1 {
            return Ok(None);
        }
        let file = match directory.open_cut_short(at.segment) {
            // A log that has later files begins behind the index, so the file is lost and not the end of the log.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let last = last_before(directory, at.segment)?;
                return Ok((last > 0).then_some(Self { last, unwritten: None }));
            }
            opened => opened?,
        };
        let noted = answered.filter(|mark| mark.number < number && mark.at.segment == at.segment);
        let begin = noted.map_or(SEGMENT_HEADER, |mark| mark.at.offset).min(at.offset);
        let mut frames = FrameReader::from(&file, directory.log, begin)?;
        let mut last = noted.map_or(0, |mark| mark.number - 1);
        while frames.offset < at.offset {
            let offset = frames.offset;
            if let Some((head, ..)) = frames.next()? {
                last = head.number;
                continue;
            }
            if is_unwritten(&file, offset, at.offset)? {
                let last = if last > 0 { last } else { last_before(directory, at.segment)? };
                let unwritten = Some(Position { segment: at.segment, offset });
                return Ok(Some(Self { last, unwritten }));
            }
            match frames.next_whole(offset)? {
                Some(next) if next < at.offset => frames.offset = next,
                // The last commits before `at` are damaged.
                _ => return Ok(None),
            }
        }
        let fits = frames.offset == at.offset && (last == 0 || last + 1 == number);
        Ok((!fits).then_some(Self { last, unwritten: None }))
    }
}

/// The number of the last intact commit in the files before a segment; 0 if there is none.
fn last_before(directory: &LogDirectory, segment: u64) -> io::Result<u64> {
    for earlier in directory.segments()?.into_iter().rev().filter(|earlier| *earlier < segment) {
        let file = directory.open_cut_short(earlier)?;
        let (mut frames, mut last) = (FrameReader::from(&file, directory.log, SEGMENT_HEADER)?, 0);
        loop {
            if let Some((head, ..)) = frames.next()? {
                last = head.number;
                continue;
            }
            let Some(next) = frames.next_whole(frames.offset)? else { break };
            frames.offset = next;
        }
        if last > 0 {
            return Ok(last);
        }
    }
    Ok(0)
}

/// Whether there are only zeros from `begin` to `end`, or the file ends there.
fn is_unwritten(file: &File, begin: u64, end: u64) -> io::Result<bool> {
    let (mut begin, end, mut bytes) = (begin, end.min(file.metadata()?.len()), vec![0; READ_BYTES]);
    while begin < end {
        let length = usize::try_from(end - begin).unwrap_or(READ_BYTES).min(READ_BYTES);
        let look = &mut bytes[..length];
        pread::read(file, look, begin)?;
        if look.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        begin += length as u64;
    }
    Ok(true)
}
