//! The files of the log: their names, what they begin with, and reading frames from one.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    at,
    frame::{FRAME_HEAD, Head, MARK},
};

/// Bytes before the first frame: what it is, whose it is, which it is.
pub(super) const SEGMENT_HEAD: u64 = HEAD_BYTES as u64;
const HEAD_BYTES: usize = 24;
const KIND: &[u8; 8] = b"DMSlog\0\x01";
/// Bytes that one look at what is behind the frames reads.
const LOOK: usize = 64 * 1024;
static ZEROS: [u8; LOOK] = [0; LOOK];

/// The directory of the log's files.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The log's own number.
    pub(super) log: u32,
}

impl Directory {
    /// The name of a file.
    pub(super) fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:010}.log"))
    }

    /// Makes a file of a size; one that is there already is made anew. It and its name are on the disk when this returns.
    pub(super) fn create(&self, segment: u64, size: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.file(segment))?;
        let made = self.fill(&file, segment, size);
        if made.is_err() {
            // What was made of it is no loss, and its room may be what others need.
            let _ = std::fs::remove_file(self.file(segment));
        }
        made.map(|()| file)
    }

    fn fill(&self, file: &File, segment: u64, size: u64) -> io::Result<()> {
        reserve(file, size)?;
        at::write(file, &self.head(segment), 0)?;
        file.sync_all()?;
        sync_directory(&self.path)
    }

    /// Opens a file; `InvalidData` if it is not this log's file of this number.
    pub(super) fn open(&self, segment: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.file(segment))?;
        let mut head = [0; HEAD_BYTES];
        match at::read(&file, &mut head, 0) {
            Ok(()) if head == self.head(segment) => Ok(file),
            Ok(()) => Err(io::Error::new(ErrorKind::InvalidData, "it belongs to another log")),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(io::Error::new(ErrorKind::InvalidData, "it is cut short"))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a file is missing, or was being made when the system stopped.
    pub(super) fn is_unmade(&self, segment: u64) -> io::Result<bool> {
        let file = match File::open(self.file(segment)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            opened => opened?,
        };
        let mut head = [0; HEAD_BYTES];
        match at::read(&file, &mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(true),
            read => read.map(|()| head == [0; HEAD_BYTES]),
        }
    }

    /// The numbers of the files that are there, in order.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok());
            found.extend(number);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn head(&self, segment: u64) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(KIND);
        head[8..12].copy_from_slice(&self.log.to_le_bytes());
        head[16..].copy_from_slice(&segment.to_le_bytes());
        head
    }
}

/// The entries of a directory are on the disk. Where a directory cannot be opened, the system sees to it.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { File::open(path)?.sync_all() }
}

/// Reserves room, so that a commit that fits is not refused by a full disk; all of it reads as zeros.
pub(super) fn reserve(file: &File, size: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        reserved => return Ok(reserved?),
    }
    file.set_len(size)
}

/// Frames of a file, one after the other.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    file: &'a File,
    log: u32,
    /// Where the next frame begins.
    pub(super) offset: u64,
    size: u64,
}

impl<'a> Frames<'a> {
    /// The frames from a place on.
    pub(super) fn from(file: &'a File, log: u32, offset: u64) -> io::Result<Self> {
        Ok(Self { file, log, offset, size: file.metadata()?.len() })
    }

    /// The next frame with its items and where it begins; `None` where none is whole.
    pub(super) fn next(&mut self) -> io::Result<Option<(Head, Vec<u8>, u64)>> {
        let at = self.offset;
        let found = self.frame_at(at)?;
        if let Some((head, _)) = &found {
            self.offset += (FRAME_HEAD + head.length) as u64;
        }
        Ok(found.map(|(head, items)| (head, items, at)))
    }

    fn frame_at(&self, at: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
        let left = self.size.saturating_sub(at);
        if left < FRAME_HEAD as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEAD];
        at::read(self.file, &mut head, at)?;
        let Some(head) = Head::read(&head).filter(|head| head.length as u64 <= left - FRAME_HEAD as u64) else {
            return Ok(None);
        };
        let mut items = vec![0; head.length];
        at::read(self.file, &mut items, at + FRAME_HEAD as u64)?;
        Ok(head.fits(self.log, &items).then_some((head, items)))
    }

    /// What is behind the last frame.
    pub(super) fn rest(&self, number: u64) -> io::Result<Rest> {
        let (mut begin, mut rest) = (self.offset, Rest::Clean);
        let mut bytes = vec![0; LOOK];
        while begin < self.size {
            let length = usize::try_from(self.size - begin).unwrap_or(LOOK).min(LOOK);
            let look = &mut bytes[..length];
            at::read(self.file, look, begin)?;
            if *look != ZEROS[..length] {
                rest = Rest::Soiled;
                if self.has_frame_above(number, look, begin)? {
                    return Ok(Rest::Frames);
                }
            }
            // A mark may lie across the border of two looks.
            let border = if begin + length as u64 == self.size { 0 } else { MARK.len() - 1 };
            begin += (length - border) as u64;
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

/// What is behind the frames that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing was ever written.
    Clean,
    /// Something that is no frame: the one that a crash cut.
    Soiled,
    /// A later frame: what is before it was damaged, and is not the end.
    Frames,
}
