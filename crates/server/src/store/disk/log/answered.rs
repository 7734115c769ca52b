//! A note beside the log that says up to which commit requests were answered.
//!
//! A crash may cut off the last frame. The log alone cannot tell that from a log whose end was lost, for example zeroed by a file
//! system or cut off by a copy. So after each commit its number is written to a second file. That file is not synced, because
//! that would double the cost of a commit. After a power cut it may be behind the log, but it is never ahead.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
};

use bytes::{Buf, BufMut};

use crate::store::{
    disk::file_ops::{self, pread},
    position::Position,
};

pub(crate) const NAME: &str = "answered";
/// Two notes are written in turn, so that a crash while one is written leaves the other.
const SLOTS: u64 = 2;
const SLOT_BYTES: usize = 64;
const FILE_BYTES: usize = 2 * SLOT_BYTES;
const NOTE_BYTES: usize = 32;

/// The last commit that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnsweredMark {
    /// The number of its frame.
    pub(crate) number: u64,
    /// Where its frame begins.
    pub(crate) at: Position,
}

/// The file with the note.
#[derive(Debug)]
pub(crate) struct AnsweredFile {
    file: File,
    log: u32,
}

impl AnsweredFile {
    /// Opens the file in the directory of a log, or creates it.
    pub(crate) fn open(directory: &Path, log: u32) -> io::Result<Self> {
        let path = directory.join(NAME);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(directory, &path)?,
            opened => opened?,
        };
        Ok(Self { file, log })
    }

    fn create(directory: &Path, path: &Path) -> io::Result<File> {
        let file = file_ops::create(path)?;
        file_ops::write(&file, &[0; FILE_BYTES], 0)?;
        // The file and its name are durable, so that later notes, which are not synced, reach a file that recovery finds.
        file_ops::sync_all(&file)?;
        file_ops::sync_directory(directory)?;
        Ok(file)
    }

    /// Notes that a commit was answered. A failure does not fail the commit, because that is on the disk already.
    pub(crate) fn note(&self, answered: AnsweredMark) {
        // Alternating slots: a write that is torn by a power cut leaves the previous note intact.
        // Not synced, because a second sync would double the time of a commit. If a power cut loses the note,
        // recovery finds an older one and only checks less.
        let place = (answered.number % SLOTS) * SLOT_BYTES as u64;
        if let Err(error) = file_ops::write(&self.file, &encode(self.log, answered), place) {
            tracing::debug!(%error, "the number of the last commit could not be noted");
        }
    }
}

/// The latest intact note of a log, if there is one.
pub(crate) fn read(directory: &Path, log: u32) -> io::Result<Option<AnsweredMark>> {
    let file = match File::open(directory.join(NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut latest: Option<AnsweredMark> = None;
    for slot in 0..SLOTS {
        let mut bytes = [0; NOTE_BYTES];
        match pread::read(&file, &mut bytes, slot * SLOT_BYTES as u64) {
            // A truncated file contains no note.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
            read => read?,
        }
        // The other slot has the note before, or was torn.
        latest = [latest, decode(log, &bytes)].into_iter().flatten().max_by_key(|note| note.number);
    }
    Ok(latest)
}

fn encode(log: u32, AnsweredMark { number, at }: AnsweredMark) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    let mut rest = &mut bytes[..NOTE_BYTES - 4];
    rest.put_u64_le(number);
    rest.put_u64_le(at.segment);
    rest.put_u64_le(at.offset);
    let sum = checksum(log, &bytes);
    bytes[NOTE_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(log: u32, bytes: &[u8; NOTE_BYTES]) -> Option<AnsweredMark> {
    let mut rest = &bytes[..];
    let (number, segment, offset) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
    rest.advance(4);
    (number > 0 && rest.get_u32_le() == checksum(log, bytes))
        .then_some(AnsweredMark { number, at: Position { segment, offset } })
}

fn checksum(log: u32, bytes: &[u8; NOTE_BYTES]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(log);
    sum.update(&bytes[..NOTE_BYTES - 4]);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_latest_whole_note_of_the_log_counts() {
        let dir = tempfile::tempdir().unwrap();
        let note = |number| AnsweredMark { number, at: Position { segment: 1, offset: number * 10 } };
        let file = AnsweredFile::open(dir.path(), 7).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), None);
        for number in 1..=5 {
            file.note(note(number));
            assert_eq!(read(dir.path(), 7).unwrap(), Some(note(number)));
        }
        pread::write(&file.file, &[1], (5 % SLOTS) * SLOT_BYTES as u64 + 3).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Some(note(4)), "a torn note is none");
        assert_eq!(read(dir.path(), 8).unwrap(), None, "another log's");
        std::fs::write(dir.path().join(NAME), "short").unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), None);
    }
}
