//! The files of the log: their names, what they begin with, and reading frames from one.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    ops::Range,
    path::{Path, PathBuf},
};

use crate::store::disk::{
    file_ops::{self, pread},
    log::frame::{FRAME_HEADER, FrameHeader, MARK},
};

/// Bytes before the first frame: what it is, whose it is, its size, its number.
pub(crate) const SEGMENT_HEADER: u64 = HEADER_BYTES as u64;
const HEADER_BYTES: usize = 24;
/// Where the head has the size that the file was made with, in bytes; zero in files of version 0.1.
const MADE_SIZE: Range<usize> = 12..16;
const KIND: &[u8; 8] = b"DMSlog\0\x01";
/// What a disk writes as a whole, or at least so many bytes.
const SECTOR: u64 = 512;
/// Bytes that one look at what is behind the frames reads.
const READ_BYTES: usize = 64 * 1024;
static ZEROS: [u8; READ_BYTES] = [0; READ_BYTES];

/// The directory of the log's files.
#[derive(Clone, Debug)]
pub(crate) struct LogDirectory {
    pub(crate) path: PathBuf,
    /// The log's own number.
    pub(crate) log: u32,
}

impl LogDirectory {
    /// The name of a file.
    pub(crate) fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:010}.log"))
    }

    /// Makes a file of a size. It and its name are on the disk when this returns.
    ///
    /// # Errors
    /// When a file of that name exists: it is never overwritten, because it may be another process's.
    pub(crate) fn create(&self, segment: u64, size: u64) -> io::Result<File> {
        let file = file_ops::create(&self.file(segment))?;
        let made = self.enlarge(&file, segment, size);
        if made.is_err() {
            // What was made of it is no loss, and its room may be what others need.
            let _ = file_ops::remove(&self.file(segment));
        }
        made.map(|()| file)
    }

    /// Makes a file that holds nothing larger. It stays the same file, because it may be open for reading.
    pub(crate) fn enlarge(&self, file: &File, segment: u64, size: u64) -> io::Result<()> {
        file_ops::reserve(&self.file(segment), file, size)?;
        // Its head may not promise more than there is, whatever a power cut leaves of both.
        file_ops::sync_all(file)?;
        self.begin(file, segment, size)
    }

    /// Makes a file that holds nothing, and has this size, one of the log. It takes no room.
    pub(crate) fn adopt(&self, from: &Path, file: &File, segment: u64, size: u64) -> io::Result<()> {
        file_ops::rename(from, &self.file(segment))?;
        self.begin(file, segment, size)
    }

    /// Makes a file of the log of one that has its size.
    pub(crate) fn begin(&self, file: &File, segment: u64, size: u64) -> io::Result<()> {
        file_ops::write(file, &self.head(segment, size), 0)?;
        file_ops::sync_all(file)?;
        file_ops::sync_directory(&self.path)
    }

    /// Opens a file; `InvalidData` if it is not this log's file of this number, or is shorter than it was made. Where its head is
    /// damaged its commits say whose it is: they have checksums of their own.
    pub(crate) fn open(&self, segment: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.file(segment))?;
        let invalid = |what| Err(io::Error::new(ErrorKind::InvalidData, what));
        let mut head = [0; HEADER_BYTES];
        match pread::read(&file, &mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return invalid("it is cut short".to_owned()),
            read => read?,
        }
        let made = made_size(&head);
        if head != self.head(segment, made) {
            return match self.has_commits_of(&file, segment)? {
                true => Ok(file),
                false => invalid("it belongs to another log".to_owned()),
            };
        }
        match file.metadata()?.len() {
            found if found < made => {
                invalid(format!("it is cut short: {found} bytes of the {made} that it was made with"))
            }
            _ => Ok(file),
        }
    }

    /// Removes a file that was made ahead of time and holds nothing.
    pub(crate) fn discard(&self, segment: u64) -> io::Result<()> {
        file_ops::remove(&self.file(segment))?;
        file_ops::sync_directory(&self.path)
    }

    /// Whether a file is missing, or was being made when the system stopped.
    pub(crate) fn is_missing_or_unfinished(&self, segment: u64) -> io::Result<bool> {
        let file = match File::open(self.file(segment)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            opened => opened?,
        };
        let mut head = [0; HEADER_BYTES];
        match pread::read(&file, &mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(true),
            read => read?,
        }
        // One that has commits has lost its head.
        Ok(head == [0; HEADER_BYTES] && first_number(&file, self.log)?.is_none())
    }

    /// Whether the head of a file is not as it was written.
    pub(crate) fn has_damaged_head(&self, file: &File, segment: u64) -> io::Result<bool> {
        let mut head = [0; HEADER_BYTES];
        pread::read(file, &mut head, 0)?;
        Ok(head != self.head(segment, made_size(&head)))
    }

    /// Whether a file has commits of this log that belong between those of the files around it.
    fn has_commits_of(&self, file: &File, segment: u64) -> io::Result<bool> {
        let Some(number) = first_number(file, self.log)? else { return Ok(false) };
        for other in self.segments()?.into_iter().filter(|other| *other != segment) {
            let first = first_number(&File::open(self.file(other))?, self.log)?;
            if first.is_some_and(|first| first == number || (first < number) != (other < segment)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The numbers of the files that are there, in order.
    pub(crate) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn head(&self, segment: u64, size: u64) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        head[..8].copy_from_slice(KIND);
        head[8..12].copy_from_slice(&self.log.to_le_bytes());
        // A file of 4 GiB or more, for one enormous commit, is not checked.
        head[MADE_SIZE].copy_from_slice(&u32::try_from(size).unwrap_or(0).to_le_bytes());
        head[16..].copy_from_slice(&segment.to_le_bytes());
        head
    }
}

/// The size in bytes that a head says its file was made with.
fn made_size(head: &[u8; HEADER_BYTES]) -> u64 {
    head[MADE_SIZE].try_into().map_or(0, |size| u64::from(u32::from_le_bytes(size)))
}

/// The number of the first whole commit of a log in a file.
fn first_number(file: &File, log: u32) -> io::Result<Option<u64>> {
    let mut frames = FrameReader::from(file, log, SEGMENT_HEADER)?;
    if let Some((head, ..)) = frames.next()? {
        return Ok(Some(head.number));
    }
    match frames.next_whole(SEGMENT_HEADER)? {
        Some(at) => Ok(frames.head_at(at)?.map(|head| head.number)),
        None => Ok(None),
    }
}

/// FrameReader of a file, one after the other.
#[derive(Debug)]
pub(crate) struct FrameReader<'a> {
    file: &'a File,
    log: u32,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    size: u64,
}

impl<'a> FrameReader<'a> {
    /// The frames from a place on.
    pub(crate) fn from(file: &'a File, log: u32, offset: u64) -> io::Result<Self> {
        Ok(Self { file, log, offset, size: file.metadata()?.len() })
    }

    /// The next frame with its items and where it begins; `None` where none is whole.
    pub(crate) fn next(&mut self) -> io::Result<Option<(FrameHeader, Vec<u8>, u64)>> {
        let at = self.offset;
        let found = self.frame_at(at)?;
        if let Some((head, _)) = &found {
            self.offset += (FRAME_HEADER + head.length) as u64;
        }
        Ok(found.map(|(head, items)| (head, items, at)))
    }

    /// Writes what is between a place and the next frame again, as it is.
    pub(crate) fn rewrite(&self, begin: u64) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(self.offset.saturating_sub(begin)).unwrap_or(0)];
        pread::read(self.file, &mut bytes, begin)?;
        file_ops::write(self.file, &bytes, begin)
    }

    /// The head of a frame that would fit into the file, whether or not the frame is whole.
    pub(crate) fn head_at(&self, at: u64) -> io::Result<Option<FrameHeader>> {
        let left = self.size.saturating_sub(at);
        if left < FRAME_HEADER as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEADER];
        pread::read(self.file, &mut head, at)?;
        Ok(FrameHeader::read(&head).filter(|head| head.length as u64 <= left - FRAME_HEADER as u64))
    }

    /// Whether a frame of this number begins at a place. A few bits of its head may have changed; one that was lost differs in more.
    pub(crate) fn begins_like(&self, at: u64, number: u64) -> io::Result<bool> {
        if self.size.saturating_sub(at) < FRAME_HEADER as u64 {
            return Ok(false);
        }
        let mut head = [0; FRAME_HEADER];
        pread::read(self.file, &mut head, at)?;
        let expected = MARK.into_iter().chain(number.to_le_bytes());
        let found = head[..4].iter().chain(&head[8..16]);
        let changed: u32 = expected.zip(found).map(|(expected, found)| (expected ^ found).count_ones()).sum();
        Ok(changed <= 8)
    }

    /// Whether nothing was written at a place: the frames end there.
    pub(crate) fn is_unwritten(&self, at: u64) -> io::Result<bool> {
        let mut head = [0; FRAME_HEADER];
        if self.size.saturating_sub(at) >= FRAME_HEADER as u64 {
            pread::read(self.file, &mut head, at)?;
        }
        Ok(head == [0; FRAME_HEADER])
    }

    /// The bytes from a place to the next whole frame, or to the end of the file.
    pub(crate) fn until_next_frame(&self, at: u64) -> io::Result<Vec<u8>> {
        let end = self.next_whole(at)?.unwrap_or(self.size);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(at)).unwrap_or(0)];
        pread::read(self.file, &mut bytes, at)?;
        Ok(bytes)
    }

    /// Where the next whole frame begins behind a place.
    pub(crate) fn next_whole(&self, at: u64) -> io::Result<Option<u64>> {
        let (mut begin, mut bytes) = (at + 1, vec![0; READ_BYTES]);
        while begin < self.size {
            let length = usize::try_from(self.size - begin).unwrap_or(READ_BYTES).min(READ_BYTES);
            let look = &mut bytes[..length];
            pread::read(self.file, look, begin)?;
            if *look != ZEROS[..length] {
                for (place, window) in look.windows(MARK.len()).enumerate() {
                    if window == MARK && self.frame_at(begin + place as u64)?.is_some() {
                        return Ok(Some(begin + place as u64));
                    }
                }
            }
            begin = next_expiry_check(begin, length, self.size);
        }
        Ok(None)
    }

    fn frame_at(&self, at: u64) -> io::Result<Option<(FrameHeader, Vec<u8>)>> {
        let Some(head) = self.head_at(at)? else { return Ok(None) };
        let mut items = vec![0; head.length];
        pread::read(self.file, &mut items, at + FRAME_HEADER as u64)?;
        Ok(head.fits(self.log, &items).then_some((head, items)))
    }

    /// What is behind the last frame.
    pub(crate) fn rest(&self, number: u64) -> io::Result<Tail> {
        let (mut begin, mut rest) = (self.offset, Tail::Zeros);
        // Of the frame that a crash cut, as far as its head tells; one in two sectors may itself be cut.
        let is_whole =
            |head: &FrameHeader| head.number == number || self.offset % SECTOR + FRAME_HEADER as u64 <= SECTOR;
        let torn = self.head_at(self.offset)?.filter(is_whole).map(|head| (FRAME_HEADER + head.length) as u64);
        let mut bytes = vec![0; READ_BYTES];
        while begin < self.size {
            let length = usize::try_from(self.size - begin).unwrap_or(READ_BYTES).min(READ_BYTES);
            let look = &mut bytes[..length];
            pread::read(self.file, look, begin)?;
            if *look != ZEROS[..length] {
                let last = look.iter().rposition(|byte| *byte != 0).unwrap_or_default();
                let bytes = begin + last as u64 + 1 - self.offset;
                rest = Tail::Torn { bytes };
                if torn.is_some_and(|torn| bytes > torn) || self.has_frame_above(number, look, begin)? {
                    return Ok(Tail::FrameReader);
                }
            }
            begin = next_expiry_check(begin, length, self.size);
        }
        Ok(rest)
    }

    fn has_frame_above(&self, number: u64, bytes: &[u8], begin: u64) -> io::Result<bool> {
        for (place, window) in bytes.windows(MARK.len()).enumerate() {
            if window == MARK && self.frame_at(begin + place as u64)?.is_some_and(|(head, _)| head.number > number) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Where to look next: a mark may lie across the border of two looks.
fn next_expiry_check(begin: u64, length: usize, size: u64) -> u64 {
    let border = if begin + length as u64 == size { 0 } else { MARK.len() - 1 };
    begin + (length - border) as u64
}

/// What is behind the frames that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing was ever written.
    Zeros,
    /// Something that is no frame: the one that a crash cut. Its last byte that is not zero is the `bytes`th.
    Torn {
        /// How many bytes to wipe.
        bytes: u64,
    },
    /// More than a crash can cut: a later frame, or bytes behind the frame that is not whole.
    FrameReader,
}
